"""Figures for ops in Prometheus' form, read from the services when they are asked for.

Nothing is counted twice: the ledger, the registry and the boards know their figures, this names them. Labels have few
values (channel, state), never a participant, a reference or a text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fanout.engine import Boards
from fanout.registry.registry import Registry
from fanout.store.protocol import Ledger
from fanout.store.states import State
from fanout.wire import CHANNELS

LIVE: Final = ("open", "paused", "closing")


class Metrics:
    """`registry` is what `/metrics` prints."""

    def __init__(self, ledger: Ledger, people: Registry, boards: Boards) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.registry.register(_Services(ledger, people, boards))


class _Services(Collector):
    def __init__(self, ledger: Ledger, people: Registry, boards: Boards) -> None:
        self._ledger = ledger
        self._people = people
        self._boards = boards

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("fanout_participants", "Registered participants.", self._people.view().people)
        yield self._dropped()
        yield self._actions()
        yield self._deliveries()
        states = Counter(board.state for board in self._boards.views())
        boards = GaugeMetricFamily("fanout_boards", "Boards known.", labels=["state"])
        for state, count in sorted(states.items()):
            boards.add_metric([state], count)
        yield boards

    def _dropped(self) -> Metric:
        family = CounterMetricFamily(
            "fanout_addresses_dropped", "Addresses that providers declared dead.", labels=["channel", "reason"]
        )
        for labels, count in self._people.dropped().items():
            family.add_metric(labels, count)
        return family

    def _actions(self) -> Metric:
        family = GaugeMetricFamily("fanout_actions", "Actions that are not over.", labels=["state"])
        states = Counter(record.state for record in self._ledger.actions(LIVE))
        for state in LIVE:
            family.add_metric([state], states[state])
        return family

    def _deliveries(self) -> Metric:
        family = GaugeMetricFamily(
            "fanout_deliveries", "Deliveries of actions that are not over.", labels=["channel", "state"]
        )
        totals: Counter[tuple[str, str]] = Counter()
        for record in self._ledger.actions(LIVE):
            for batch in self._ledger.counts(record.id):
                for state in State:
                    totals[CHANNELS[batch.channel], state.name.lower()] += batch.states[state]
        for labels, count in sorted(totals.items()):
            family.add_metric(labels, count)
        return family
