"""OpenAI's requests and responses as vLLM reads and writes them. Pure: bytes and dicts."""

from __future__ import annotations

import json
import uuid
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.simulated_vllm.answers import ToolCall
    from support.simulated_vllm.models import Models

TOKEN_BYTES = 4
"""A prompt token is four bytes of text: about what tokenizers make of English."""
DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default max_tokens of /v1/completions; chat has none."""
_TEMPLATE_END = b"<|im_start|>assistant\n"


class ApiError(Exception):
    """A request that is refused, with vLLM's error body."""

    def __init__(self, status: int, kind: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> dict[str, Any]:
        """The JSON body: {"error": {message, type, param, code}}."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.status,
            }
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A valid request for text."""

    chat: bool
    model: str
    adapter: str | None
    prompt: bytes
    question: str
    """The last message, when it is plain text."""
    tools: frozenset[str]
    """Names of the tools that may be called."""
    prompt_tokens: int
    max_tokens: int
    """Upper limit of the answer, at least 1."""
    ignore_eos: bool
    stream: bool
    include_usage: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a request body. Raises ApiError 400."""
    try:
        value = json.loads(body)
    except ValueError as error:
        raise _bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _bad_request(f"the body is a JSON {type(value).__name__}, expected an object")
    return value


def parse_generation(body: bytes, *, chat: bool, models: Models) -> Generation:
    """Read a chat or text completion request.

    Raises ApiError: 400 for a body that vLLM would refuse, 404 for an unknown model.
    """
    request = parse_object(body)
    model = request.get("model", models.served[0])
    if not isinstance(model, str):
        raise _bad_request(f"model: found {model!r}, expected a string", param="model")
    if not models.knows(model):
        raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.", param="model")
    if request.get("n", 1) != 1:
        raise _bad_request("n: the simulated server gives one answer per request", param="n")
    prompt = _render_chat(request) if chat else _render_prompt(request)
    prompt_tokens = max(1, -(-len(prompt) // TOKEN_BYTES))
    options = request.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _bad_request("stream_options: expected an object", param="stream_options")
    return Generation(
        chat=chat,
        model=model,
        adapter=models.adapter(model),
        prompt=prompt,
        question=_question(request) if chat else "",
        tools=_tools(request),
        prompt_tokens=prompt_tokens,
        max_tokens=_max_tokens(request, prompt_tokens, chat=chat, limit=models.max_model_len),
        ignore_eos=bool(request.get("ignore_eos", False)),
        stream=bool(request.get("stream", False)),
        include_usage=bool(options.get("include_usage", False)),
    )


def usage(generation: Generation, *, completion_tokens: int) -> dict[str, Any]:
    """The `usage` object."""
    return {
        "prompt_tokens": generation.prompt_tokens,
        "total_tokens": generation.prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
        "prompt_tokens_details": None,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes the answer to one request: as one body, or chunk by chunk."""

    generation: Generation
    identifier: str
    created: int
    fingerprint: str

    def whole(
        self, tokens: list[str], *, reason: str, call: ToolCall | None = None
    ) -> dict[str, Any]:
        """The body of an answer without streaming; of a tool call the tokens only count."""
        text = "".join(tokens) if call is None else None
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason}
        if self.generation.chat:
            choice["message"] = {
                "role": "assistant",
                "content": text,
                "reasoning_content": None,
                "tool_calls": [] if call is None else [_called(call)],
            }
        else:
            choice["text"] = text
        return {
            **self._head(chunk=False),
            "choices": [{**choice, "stop_reason": None}],
            "usage": usage(self.generation, completion_tokens=len(tokens)),
        }

    def template(self) -> tuple[bytes, bytes]:
        """What stands before and after the JSON string of a token in a chunk."""
        mark = "\u0000"
        choice: dict[str, Any] = {"index": 0}
        if self.generation.chat:
            choice["delta"] = {"content": mark}
        else:
            choice["text"] = mark
        chunk = _event(
            {
                **self._head(chunk=True),
                "choices": [{**choice, "logprobs": None, "finish_reason": None}],
            }
        )
        before, after = chunk.split(json.dumps(mark).encode())
        return before, after

    def first(self) -> bytes:
        """The chunk that names the role; nothing for text completions."""
        if not self.generation.chat:
            return b""
        choice = {
            "index": 0,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return _event({**self._head(chunk=True), "choices": [choice]})

    def last(
        self, token: str, *, reason: str, completion_tokens: int, call: ToolCall | None = None
    ) -> bytes:
        """The last token (or the tool call), finish_reason, usage if asked for, and [DONE]."""
        text: dict[str, Any] = {"text": token}
        if call is not None:
            text = {"delta": {"tool_calls": [{"index": 0} | _called(call)]}}
        elif self.generation.chat:
            text = {"delta": {"content": token}}
        choice = {
            "index": 0,
            **text,
            "logprobs": None,
            "finish_reason": reason,
            "stop_reason": None,
        }
        events = _event({**self._head(chunk=True), "choices": [choice]})
        if self.generation.include_usage:
            count = usage(self.generation, completion_tokens=completion_tokens)
            events += _event({**self._head(chunk=True), "choices": [], "usage": count})
        return events + b"data: [DONE]\n\n"

    def _head(self, *, chunk: bool) -> dict[str, Any]:
        if self.generation.chat:
            kind = "chat.completion.chunk" if chunk else "chat.completion"
        else:
            kind = "text_completion"
        return {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": self.generation.model,
            "system_fingerprint": self.fingerprint,
        }


def _called(call: ToolCall) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-tool-{uuid.uuid4().hex}",
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _question(request: dict[str, Any]) -> str:
    messages = request.get("messages")
    content = messages[-1].get("content") if isinstance(messages, list) and messages else None
    return content if isinstance(content, str) else ""


def _tools(request: dict[str, Any]) -> frozenset[str]:
    tools = request.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise _bad_request("tools: expected a list of objects", param="tools")
    return frozenset(str((tool.get("function") or {}).get("name")) for tool in tools)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _bad_request(message: str, *, param: str | None = None) -> ApiError:
    return ApiError(400, "BadRequestError", message, param=param)


def _max_tokens(request: dict[str, Any], prompt_tokens: int, *, chat: bool, limit: int) -> int:
    room = limit - prompt_tokens
    if room < 1:
        raise _bad_request(
            f"This model's maximum context length is {limit} tokens. However, your request has "
            f"{prompt_tokens} input tokens."
        )
    asked = request.get("max_completion_tokens") or request.get("max_tokens")
    if asked is None:
        return room if chat else min(room, DEFAULT_COMPLETION_TOKENS)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise _bad_request(f"max_tokens must be at least 1, got {asked!r}.", param="max_tokens")
    if asked > room:
        raise _bad_request(
            f"'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's "
            f"maximum context length is {limit} tokens and your request has {prompt_tokens} "
            f"input tokens.",
            param="max_tokens",
        )
    return asked


def _render_chat(request: dict[str, Any]) -> bytes:
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad_request("messages: a list with at least one message", param="messages")
    parts: list[bytes] = []
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _bad_request(f"messages[{position}]: expected an object with a role")
        content = _content(message.get("content"), position)
        parts.append(f"<|im_start|>{message['role']}\n{content}<|im_end|>\n".encode())
    return b"".join(parts) + _TEMPLATE_END


def _content(content: object, position: int) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    raise _bad_request(f"messages[{position}].content: expected text or a list of parts")


def _render_prompt(request: dict[str, Any]) -> bytes:
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.encode()
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        try:
            return array("I", prompt).tobytes()
        except OverflowError as error:
            raise _bad_request(f"prompt: {error}", param="prompt") from error
    raise _bad_request("prompt: expected one text or one list of token ids", param="prompt")
