"""Makes a tiny chat model with random weights, and LoRA adapters for it. Runs in vLLM's venv.

``python model.py FOLDER``: FOLDER/base, FOLDER/v1 and FOLDER/v2. Its answers are gibberish, and
vLLM treats it like any other Qwen2: tokens, caches, adapters and metrics are real.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SENTENCES = (
    "A canary gets a small share of the requests before everybody does.",
    "The picker chooses the model server that has the least to do.",
    "Prompts that begin alike should meet the cache that knows them.",
    "An adapter is a small change to a large model.",
    "Where is the nearest museum, and when does it open?",
    "Tell me about trains, boats and mountains in three sentences.",
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
HIDDEN, LAYERS, HEADS, KV_HEADS, RANK = 64, 2, 2, 1, 8
HEAD_SIZE = HIDDEN // HEADS


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of a few hundred tokens: any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=448,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )


def make_base(folder: Path) -> None:
    """The base model with its tokenizer."""
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            initializer_range=0.5,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_adapter(folder: Path, seed: int) -> None:
    """An adapter in PEFT's format."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    sizes = {"q_proj": HIDDEN, "v_proj": KV_HEADS * HEAD_SIZE, "o_proj": HIDDEN}
    weights = {}
    for layer in range(LAYERS):
        for name, output in sizes.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{at}.lora_A.weight"] = 0.3 * torch.randn(RANK, HIDDEN)
            weights[f"{at}.lora_B.weight"] = 0.3 * torch.randn(output, RANK)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "base",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(sizes),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    place = Path(sys.argv[1])
    make_base(place / "base")
    for number, name in enumerate(("v1", "v2"), start=1):
        make_adapter(place / name, seed=number)
