"""The reference transformer, and what is asked of any model: its size, and a continuation."""

from helpers.models.decoder import Decoder, DecoderConfig, build_decoder
from helpers.models.generate import complete_text, generate
from helpers.models.summary import count_parameters, summarize

__all__ = [
    "Decoder",
    "DecoderConfig",
    "build_decoder",
    "complete_text",
    "count_parameters",
    "generate",
    "summarize",
]
