"""What `cqrs top` makes of the workers' metrics: given two answers, then this is shown."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from deploy.cli import top as top_module
from deploy.cli.top import top
from deploy.scraping import read_targets
from deploy.top import overview as overview_module
from deploy.top.overview import Overview, ParkedCommands, overview
from deploy.top.scrapes import Distribution, Scrape, pairs, parse, rates
from deploy.top.screen import screen
from streams.metrics import definitions
from tests.harness.outputs import misfits

COMMANDS, VIEWS, OTHER = "10.0.0.1:9100", "10.0.0.1:9110", "10.0.0.2:9100"
TOPIC = "users.commands.v1"
EVENTS = "users.events.v1"


def of(target: str, at: float, *lines: str, started: float = 1.0) -> Scrape:
    """The answer of a worker with these samples."""
    text = "\n".join([*lines, f"process_start_time_seconds {started}", ""])
    return Scrape(target, at, parse(text))


def silent(target: str, at: float) -> Scrape:
    return Scrape(target, at, None, "does not answer: Connection refused")


def partition(
    number: int,
    *,
    topic: str = TOPIC,
    state: str = "running",
    position: int | None = 100,
    end: int = 100,
    age: float = 0.0,
    progressed: float = 90.0,
) -> list[str]:
    """The samples of a partition that is owned."""
    labels = f'group="g-{topic}",topic="{topic}",partition="{number}"'
    lines = [
        f'cqrs_partition_state{{{labels},state="{one}"}} {float(one == state)}'
        for one in ("starting", "running", "waiting", "parked")
    ]
    lines += [
        f"cqrs_partition_end_offset{{{labels}}} {end}",
        f"cqrs_partition_last_progress_timestamp_seconds{{{labels}}} {progressed}",
    ]
    if position is not None:
        lines += [
            f"cqrs_partition_position{{{labels}}} {position}",
            f"cqrs_partition_lag_records{{{labels}}} {end - position}",
            f"cqrs_partition_lag_seconds{{{labels}}} {age}",
        ]
    return lines


def owner(topic: str, partitions: int, owned: int) -> list[str]:
    return [
        f'cqrs_build_info{{group="g-{topic}",version="1.2.3"}} 1',
        f'cqrs_topic_partitions{{group="g-{topic}",topic="{topic}"}} {partitions}',
        f'cqrs_assigned_partitions{{group="g-{topic}",topic="{topic}"}} {owned}',
    ]


def outcomes(accepted: int, rejected: int = 0) -> list[str]:
    return [
        f'cqrs_commands_total{{type="RegisterUser",outcome="accepted"}} {accepted}',
        f'cqrs_commands_total{{type="EraseUser",outcome="accepted"}} {accepted}',
        f'cqrs_commands_total{{type="RegisterUser",outcome="rejected"}} {rejected}',
    ]


class TestRates:
    def test_are_sums_over_workers_and_labels(self) -> None:
        before = [of(COMMANDS, 10, *outcomes(100)), of(OTHER, 10, *outcomes(0))]
        now = [of(COMMANDS, 12, *outcomes(300, 4)), of(OTHER, 14, *outcomes(40))]
        found = overview(before, now)
        assert found.commands_per_second == {"accepted": 200 + 20, "rejected": 2}
        assert found.seconds == 4

    def test_a_restarted_worker_has_counted_from_0(self) -> None:
        """Also if it has counted further than the process before it."""
        for accepted in (30, 130):
            before = [of(COMMANDS, 10, *outcomes(100), started=1)]
            now = [of(COMMANDS, 20, *outcomes(accepted), started=12)]
            assert overview(before, now).commands_per_second["accepted"] == 2 * accepted / 10

    def test_a_counter_that_went_back_was_reset(self) -> None:
        """Of a worker that does not say when it was started."""
        before, now = (
            Scrape(COMMANDS, at, parse("\n".join(outcomes(number)) + "\n"))
            for at, number in ((10.0, 100), (20.0, 30))
        )
        assert overview([before], [now]).commands_per_second["accepted"] == 6

    def test_of_a_new_label_everything_is_new(self) -> None:
        before, now = [of(COMMANDS, 10)], [of(COMMANDS, 12, *outcomes(10))]
        assert overview(before, now).commands_per_second["accepted"] == 10

    @pytest.mark.parametrize(
        "before",
        [[], [silent(COMMANDS, 10)], [of(OTHER, 10)], [of(COMMANDS, 12, *outcomes(9))]],
        ids=["nothing", "silence", "another", "the same moment"],
    )
    def test_there_are_none_without_an_answer_before(self, before: list[Scrape]) -> None:
        found = overview(before, [of(COMMANDS, 12, *outcomes(10))])
        assert found.commands_per_second == {}
        assert found.events_per_second is None
        assert found.seconds is None
        assert found.workers[0].cpu_percent is None

    def test_of_a_worker_that_stopped_to_answer_there_are_none(self) -> None:
        found = overview([of(COMMANDS, 10, *outcomes(1))], [silent(COMMANDS, 12)])
        assert found.commands_per_second == {}
        assert [one.target for one in found.silent] == [COMMANDS]

    def test_only_of_what_has_these_labels(self) -> None:
        found = pairs(
            [of(COMMANDS, 10)], [of(COMMANDS, 11, 'x_total{a="1",b="2"} 3', 'x_total{a="2"} 5')]
        )
        assert rates(found.values(), "x_total", "a", b="2") == {"1": 3}


class TestQuantiles:
    @pytest.mark.parametrize(
        ("q", "value"), [(0.0, 0.0), (0.5, 0.1), (0.75, 0.55), (0.9, 0.82), (0.95, 1.0)]
    )
    def test_are_interpolated_within_a_bucket(self, q: float, value: float) -> None:
        found = Distribution({0.1: 5, 1.0: 10 * 0.95, float("inf"): 10}, 1)
        if q in (0.75, 0.9):
            value = 0.1 + 0.9 * (q * 10 - 5) / 4.5
        assert found.quantile(q) == pytest.approx(value)

    def test_beyond_the_last_bound_they_are_that(self) -> None:
        found = Distribution({0.1: 0, 1.0: 0, float("inf"): 3}, 1)
        assert found.quantile(0.5) == found.last_bound == 1.0

    def test_of_nothing_there_are_none(self) -> None:
        assert Distribution({}, 0).quantile(0.5) is None
        assert Distribution({}, 0).last_bound == 0.0
        assert Distribution({1.0: 0, float("inf"): 0}, 0).quantile(0.5) is None

    def test_are_of_what_ended_between_the_answers(self) -> None:
        """The slow ones were before, and in two workers."""

        def histogram(fast: int, slow: int) -> list[str]:
            name = 'cqrs_chunk_seconds_bucket{step="decide"'
            return [
                f'{name},le="0.1"}} {fast}',
                f'{name},le="1.0"}} {fast + slow}',
                f'{name},le="+Inf"}} {fast + slow}',
            ]

        before = [of(COMMANDS, 10, *histogram(0, 99)), of(OTHER, 10, *histogram(5, 9))]
        now = [of(COMMANDS, 12, *histogram(10, 99)), of(OTHER, 12, *histogram(15, 9))]
        (found,) = overview(before, now).latencies
        assert found.what == "chunk of commands: decide"
        assert found.p50 == pytest.approx(0.05)
        assert (found.per_second, found.limit) == (10, 1.0)


class TestPartitions:
    def test_what_needs_a_person_is_first_and_then_what_is_behind(self) -> None:
        before = [of(COMMANDS, 98, *partition(2, position=20))]
        now = [
            of(
                COMMANDS,
                100,
                *partition(0),
                *partition(1, state="parked", position=None),
                *partition(2, position=40, age=3.5),
            ),
            of(OTHER, 100, *partition(3, state="waiting", position=7)),
        ]
        found = overview(before, now).partitions
        assert [(one.partition, one.state) for one in found] == [
            (1, "parked"),
            (3, "waiting"),
            (2, "running"),
            (0, "running"),
        ]
        behind = found[2]
        assert (behind.worker, behind.position, behind.lag_records) == (COMMANDS, 40, 60)
        assert (behind.lag_seconds, behind.per_second, behind.quiet_seconds) == (3.5, 10, 10)
        assert (found[0].position, found[0].lag_seconds, found[0].per_second) == (None, None, None)

    def test_those_that_nobody_has_are_named(self) -> None:
        now = [
            of(COMMANDS, 100, *owner(TOPIC, 4, 1), *partition(1)),
            of(OTHER, 100, *owner(TOPIC, 4, 1), *partition(3)),
            silent("10.0.0.3:9100", 100),
        ]
        (found,) = overview([], now).unowned
        assert (found.group, found.topic, found.partitions) == (f"g-{TOPIC}", TOPIC, (0, 2))
        assert overview([], [of(COMMANDS, 1, *owner(TOPIC, 1, 1), *partition(0))]).unowned == ()


class TestParkedCommands:
    def test_are_those_of_all_workers(self) -> None:
        def parked(aggregates: int, commands: int, *oldest: float) -> list[str]:
            labels = '{topic="t",partition="0"}'
            return [
                f"cqrs_parked_aggregates{labels} {aggregates}",
                f"cqrs_parked_commands{labels} {commands}",
                *(f"cqrs_parked_oldest_timestamp_seconds{labels} {at}" for at in oldest),
            ]

        now = [of(COMMANDS, 100, *parked(1, 2, 40)), of(OTHER, 100, *parked(2, 2, 10))]
        assert overview([], now).parked == ParkedCommands(3, 4, 90)
        none = [of(COMMANDS, 100, *parked(0, 0)), silent(OTHER, 100)]
        assert overview([], none).parked == ParkedCommands(0, 0, None)
        assert not any("dead list" in line for line in shown(overview([], none), 80))


class TestIndices:
    def positions(self, index: str, state: str, *numbers: int) -> list[str]:
        return [
            f'cqrs_view_index_position{{index="{index}",state="{state}",partition="{number}"}} {at}'
            for number, at in enumerate(numbers)
        ]

    def test_how_much_of_the_events_each_one_has(self) -> None:
        """A worker knows the ends of its own partitions only, and looks once a second."""
        seen = [
            *self.positions("v1", "serving", 100, 300),
            *self.positions("v2", "building", 0, 50),
        ]
        later = self.positions("v2", "building", 10, 40)
        now = [
            of(VIEWS, 100, *seen, *owner(EVENTS, 2, 1), *partition(0, topic=EVENTS, end=100)),
            of(OTHER, 100, *later, *owner(EVENTS, 2, 1), *partition(1, topic=EVENTS, end=300)),
        ]
        serving, building = overview([], now).indices
        assert (serving.name, serving.state, serving.done) == ("v1", "serving", 1.0)
        assert (building.name, building.state, building.done) == ("v2", "building", 60 / 400)
        assert building.retries_per_second is None

    def test_without_the_ends_it_is_not_known(self) -> None:
        (index,) = overview([], [of(VIEWS, 100, *self.positions("v1", "serving", 100))]).indices
        assert index.done is None

    def test_of_no_events_it_has_all(self) -> None:
        lines = [*owner(EVENTS, 1, 1), *partition(0, topic=EVENTS, end=0)]
        lines += self.positions("v1", "serving", 0)
        (index,) = overview([], [of(VIEWS, 100, *lines)]).indices
        assert index.done == 1.0

    def test_what_is_projected(self) -> None:
        def counted(number: int) -> list[str]:
            return [
                *self.positions("v1", "serving", 0),
                f'cqrs_view_events_total{{index="v1",result="written"}} {number}',
                f'cqrs_view_events_total{{index="v2",result="written"}} {3 * number}',
                f'cqrs_view_retries_total{{index="v1"}} {number}',
            ]

        (index,) = overview([of(VIEWS, 10, *counted(0))], [of(VIEWS, 12, *counted(10))]).indices
        assert (index.per_second, index.retries_per_second) == ({"written": 5}, 5)


def test_every_metric_that_is_read_exists() -> None:
    text = Path(overview_module.__file__).read_text()
    assert set(re.findall(r'"(cqrs_\w+)"', text)) <= {one.name for one in definitions()}


def whole() -> Overview:
    """A deployment with something of everything."""
    topic = f"a-rather-long-namespace-{TOPIC}"

    def lines(number: int) -> list[str]:
        buckets = "cqrs_chunk_age_seconds_bucket"
        return [
            *owner(topic, 6, 4),
            *partition(0, topic=topic, position=1_000_000 + number, end=123_456_789, age=12.5),
            *partition(1, topic=topic, state="waiting"),
            *partition(2, topic=topic, state="parked", position=None),
            *partition(3, topic=topic, position=99, progressed=-8000),
            *outcomes(number, number),
            f'cqrs_events_total{{type="UserRegistered"}} {number}',
            f'cqrs_dead_letters_total{{stage="commands",code="malformed-json"}} {number}',
            f'cqrs_transactions_total{{result="committed"}} {number}',
            'cqrs_view_index_position{index="user-views-v2",state="building",partition="0"} 5',
            'cqrs_parked_aggregates{topic="t",partition="0"} 2',
            'cqrs_parked_commands{topic="t",partition="0"} 5',
            'cqrs_parked_oldest_timestamp_seconds{topic="t",partition="0"} -700',
            f'{buckets}{{le="0.005"}} {number}',
            f'{buckets}{{le="300.0"}} {number}',
            f'{buckets}{{le="+Inf"}} {2 * number}',
            'cqrs_partition_start_seconds_bucket{topic="t",le="+Inf"} 0',
            f"process_cpu_seconds_total {number / 1000}",
            f"process_resident_memory_bytes {512 * 2**20}",
        ]

    other = ['cqrs_build_info{group="g",version="1"} 1']
    return overview(
        [of(COMMANDS, 100, *lines(0)), of(OTHER, 100, *other)],
        [
            of(COMMANDS, 102, *lines(1000)),
            of(OTHER, 102, *other),
            silent("a-worker.with-a-long-name.in-the-cluster.example.org:9100", 102),
        ],
    )


def shown(found: Overview, width: int, height: int | None = None) -> list[str]:
    output = StringIO()
    Console(file=output, width=width).print(screen(found, width, height))
    return [line.rstrip() for line in output.getvalue().splitlines()]


class TestScreen:
    @pytest.mark.parametrize("width", [80, 200])
    def test_it_fits(self, width: int) -> None:
        lines = shown(whole(), width)
        assert max(map(len, lines)) <= width
        text = " ".join(lines)  # a sentence may take two
        for part in (
            "2 of 3 workers answer",
            "last 2.0 s",
            "accepted 1,000, rejected 500",
            "parked",
            "122,455,789",
            "12.5 s",
            "no worker that answers has",
            "GET /ready, and the log, of 10.0.0.1:9100",
            "parked commands: 5, users: 2, the oldest for 13 min: see `cqrs dead list`",
            "dead letters of commands: 1,000 since its workers were started",
            "user-views-v2",
            "building",
            "5.0 ms",
            "> 5 min",
            "does not answer: Connection refused",
            "standby",
            "50%",
            "512 MiB",
        ):
            assert part in text, part

    def test_with_room_it_shows_more(self) -> None:
        narrow, wide = shown(whole(), 80), shown(whole(), 200)
        for word in ("position", "quiet", "skipped/s", "version", "2 h", "123,456,789"):
            assert word not in "\n".join(narrow)
            assert word in "\n".join(wide)
        assert f"a-rather-long-namespace-{TOPIC} " in "\n".join(wide)

    def test_with_little_height_the_healthy_ones_are_counted(self) -> None:
        lines = shown(whole(), 80, 10)
        assert "  and 1 more: 1 running" in lines
        assert any("parked" in line for line in lines)

    def test_after_the_first_look_there_are_no_rates(self) -> None:
        lines = shown(overview([], [of(COMMANDS, 100, *owner(TOPIC, 1, 1), *partition(0))]), 80)
        assert not any(line.startswith(("commands", "events")) for line in lines)

    def test_of_a_deployment_that_only_projects_there_are_no_rates_of_commands(self) -> None:
        lines = shown(overview([of(VIEWS, 100)], [of(VIEWS, 102)]), 80)
        assert not any(line.startswith(("commands", "events")) for line in lines)

    def test_without_any_answer_it_says_so(self) -> None:
        lines = shown(overview([], [silent(COMMANDS, 100)]), 80)
        assert "0 of 1 workers answer" in lines[0]
        assert "does not answer" in lines[-1]


def run_once(monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    async def looks(*_: object) -> AsyncIterator[Overview]:
        for _number in range(2):
            yield whole()

    monkeypatch.setattr(top_module, "_looks", looks)
    done = CliRunner().invoke(top, [COMMANDS, "--once", *options])
    assert done.exit_code == 75, done.output  # a worker does not answer
    return done.stdout


def test_once_is_one_object_or_a_line_for_each_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    as_json = run_once(monkeypatch, "--json")
    assert misfits("top", "json", as_json) == []
    found = json.loads(as_json)
    assert found["partitions"][0]["state"] == "parked"
    assert found["commandsPerSecond"] == {"accepted": 1000, "rejected": 500}
    rows = [line.split("\t") for line in run_once(monkeypatch, "-o", "tsv").splitlines()]
    assert [(row[2], row[4]) for row in rows] == [
        (str(one.partition), one.state) for one in whole().partitions
    ]
    assert "2 of 3 workers answer" in run_once(monkeypatch)


class TestTargets:
    @pytest.mark.parametrize(
        ("text", "targets", "problem"),
        [
            ('[{"targets": ["a:1", "b:2"]}, {"targets": ["c:3"]}]', ["a:1", "b:2", "c:3"], ""),
            ("{", [], "is not a list of targets"),
            ("[1]", [], "is not a list of targets"),
            ("[{}]", [], "is not a list of targets"),
        ],
    )
    def test_of_a_list(self, text: str, targets: list[str], problem: str, tmp_path: Path) -> None:
        path = tmp_path / "list.json"
        path.write_text(text)
        assert read_targets(path) == (targets, problem)

    def test_of_no_list(self, tmp_path: Path) -> None:
        found, problem = read_targets(tmp_path / "list.json")
        assert (found, problem) == ([], "there is no such list: its `cqrs worker` does not run")
        assert read_targets(tmp_path) == ([], "cannot be read: Is a directory")

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            ([], "`cqrs dev` does not run: say which workers"),
            (["http://127.0.0.1:9100"], "without http://"),
            (["localhost"], "HOST:PORT"),
        ],
    )
    def test_that_are_none(
        self, arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CQRS_STACK_HOME", str(tmp_path))
        done = CliRunner().invoke(top, arguments)
        assert done.exit_code == 2
        assert line in done.output
