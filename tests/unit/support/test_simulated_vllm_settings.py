from __future__ import annotations

import pytest

from support.simulated_vllm.settings import parse

SEED_COMMAND = (
    "serve /models/Qwen-2.5-7B-Instruct --port 8000 --trust-remote-code "
    "--served-model-name mymodel --max-model-len 8192 --gpu-memory-utilization 0.95 "
    "--enforce-eager --enable-lora --max-loras 2 --max-cpu-loras 4 --lora-modules "
    "travel-helper-v1=/models/Qwen-TravelHelper-Lora "
    "travel-helper-v2=/models/Qwen-TravelHelper-Lora-v2"
)


def test_the_command_of_the_published_manifests_is_understood() -> None:
    settings = parse(SEED_COMMAND.split(), {})
    assert settings.version == "Qwen-2.5-7B-Instruct"
    assert settings.served == ("mymodel",)
    assert list(settings.adapters) == ["travel-helper-v1", "travel-helper-v2"]
    assert settings.lora_enabled


def test_faults_come_from_the_environment_and_flags_come_on_top() -> None:
    environment = {"SIMULATED_VLLM_FAULTS": "slow_factor=2,error_rate=0.1", "POD_NAME": "pod-1"}
    settings = parse(["--fault", "error_rate=0.2"], environment)
    assert (settings.faults.slow_factor, settings.faults.error_rate) == (2.0, 0.2)
    assert settings.name == "pod-1"


def test_a_model_is_never_longer_than_the_cache() -> None:
    assert parse(["--gpu-blocks", "8", "--block-size", "32"], {}).max_model_len == 256


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora-modules", "v1"], "found 'v1', expected NAME=PATH"),
        (["--fault", "eror"], "unknown fault 'eror'"),
        (["--speed", "0"], "--speed: expected more than 0"),
        (["--max-loras", "0"], "--max-loras: expected more than 0"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_named(
    capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(flags, {})
    assert end.value.code == 2
    assert message in capsys.readouterr().err
