"""The reference transformer, and what is asked of any model: its size, and a continuation."""

from helpers.models.decoder import Decoder, DecoderConfig
from helpers.models.generate import generate
from helpers.models.summary import count_parameters, summarize

__all__ = ["Decoder", "DecoderConfig", "count_parameters", "generate", "summarize"]
