"""Channels: how each provider is spoken to, as pure functions over columns."""

from fanout.channels.catalogue import paces, renderings, unfit
from fanout.channels.protocol import Pace

__all__ = ["Pace", "paces", "renderings", "unfit"]
