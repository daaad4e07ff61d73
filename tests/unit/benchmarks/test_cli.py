"""What `cqrs bench` makes of its figures. No server is started here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.catalogue import BENCHMARKS
from benchmarks.deciding import Sample, cpu_per_command
from benchmarks.peers.extra import need
from benchmarks.plot import write_plot
from benchmarks.report import changes, markdown_of, plot_name, rows
from benchmarks.rig.backlog import backlog, rate
from benchmarks.rig.machine import machine, versions
from benchmarks.rig.result import Contest, Result, Spread
from benchmarks.rig.runner import BenchContext, Benchmark, Contestant, Figures, percentile, run
from benchmarks.rig.target import Target
from deploy.cli.main import cqrs
from deploy.embedded.stack import EmbeddedStack
from models.errors import Fatal
from streams.progress import no_progress
from tests.harness.command_line import ROOT

RESULTS = ROOT / "benchmarks" / "results"

ROUNDS = st.lists(st.floats(min_value=0.001, max_value=1e9), min_size=1)

RESULT = Result(
    benchmark="deciding",
    about="Commands decided per second.",
    began="2026-11-24T13:50:00+00:00",
    machine=machine(),
    load={"begin": 0.5, "end": 2.5},
    versions=versions(),
    seed=1,
    size_name="full",
    size={"commands": 300_000},
    rounds=3,
    contests=[
        Contest("ours", "All of it.", {"commands/s": [20_000.0, 24_000.0, 22_000.0]}),
        Contest("theirs", "The same.", {"commands/s": [10_000.0, 11_000.0, 12_000.0], "ms": [1.5]}),
    ],
)


def with_ours(*rounds: float) -> Result:
    return replace(RESULT, contests=[Contest("ours", "All.", {"commands/s": list(rounds)})])


@given(ROUNDS)
def test_a_median_is_within_its_spread(rounds: list[float]) -> None:
    spread = Spread.of(rounds)
    assert spread.low <= spread.median <= spread.high
    assert spread.overlaps(spread)


@given(ROUNDS, ROUNDS)
def test_spreads_overlap_unless_one_is_beyond_the_other(
    some: list[float], others: list[float]
) -> None:
    apart = max(some) < min(others) or max(others) < min(some)
    assert Spread.of(some).overlaps(Spread.of(others)) is not apart
    assert Spread.of(others).overlaps(Spread.of(some)) is not apart


async def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    ran: list[str] = []

    def contestant(name: str) -> Contestant:
        async def measure(ground: BenchContext) -> Figures:
            ran.append(name)
            return {"runs": len(ran)}

        return Contestant(name, "Counts.", measure)

    counting = Benchmark("counting", "", {"small": {}}, (contestant("ours"), contestant("theirs")))
    stack = EmbeddedStack(Path("never started"))
    result = await run(counting, stack, rounds=3, size_name="small", seed=1, progress=no_progress)
    assert ran == ["ours", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [one.figures for one in result.contests] == [{"runs": [2, 5, 6]}, {"runs": [3, 4, 7]}]


@given(ROUNDS, st.floats(min_value=0.1, max_value=100))
def test_a_percentile_is_the_smallest_time_that_enough_do_not_exceed(
    times: list[float], percent: float
) -> None:
    found = percentile(times, percent)
    assert sum(time <= found for time in times) >= len(times) * percent / 100
    assert sum(time < found for time in times) < len(times) * percent / 100


def test_each_figure_is_shown_with_its_ratio_to_ours() -> None:
    assert [(row.contestant, row.figure, row.spread.median, row.ratio) for row in rows(RESULT)] == [
        ("ours", "commands/s", 22_000, None),
        ("theirs", "commands/s", 11_000, 2.0),
        ("theirs", "ms", 1.5, None),  # of which we have none
    ]


def test_a_rate_leaves_out_the_warm_up_and_the_last_tenth() -> None:
    slow_begin = [0.0, 10.0, 10.0]
    steady = [10.0 + n / 100 for n in range(1, 178)]
    slow_end = [20.0 + n for n in range(20)]
    assert rate([*slow_begin, *steady, *slow_end], warm_up=2) == pytest.approx(100)


def test_a_rate_counts_what_came_between_two_batches_and_all_of_the_last_one() -> None:
    batches = [0.0, 1.0, 1.0, 1.0, *[2.0] * 5, *[3.0] * 2]
    assert rate(batches, warm_up=1) == pytest.approx(7 / 2)


def test_cpu_is_counted_after_the_warm_up_and_before_the_last_tenth() -> None:
    begin = [Sample(0, 0.0), Sample(50, 9.0)]
    samples = [*begin, Sample(120, 10.0), Sample(230, 12.0), Sample(250, 12.1)]
    assert cpu_per_command(samples, warm_up=100) == pytest.approx(2 / 110)
    # less than the samples or the clock of the system show
    assert cpu_per_command(samples, warm_up=200) == pytest.approx(12.1 / 250)
    unseen = [*begin, Sample(120, 10.0), Sample(230, 10.0), Sample(250, 12.1)]
    assert cpu_per_command(unseen, warm_up=100) == pytest.approx(12.1 / 250)


def test_work_that_is_not_committed_yet_costs_no_less_cpu() -> None:
    """100 commands are decided and not committed, except at the end; each takes 1 s."""
    steady = [Sample(committed, committed + 100.0) for committed in range(0, 1000, 50)]
    samples = [Sample(0, 0.0), *steady, Sample(1000, 1000.0)]
    assert cpu_per_command(samples, warm_up=200) == pytest.approx(1)


def test_the_backlog_is_the_same_for_the_same_seed_and_counts_its_answers() -> None:
    first = backlog(1000, seed=1)
    backlog.cache_clear()
    assert backlog(1000, seed=1) == first
    assert first.statuses.total() == len(first.records) == 1000
    assert first.statuses["dead-lettered"] == 5
    assert set(first.statuses) == {"accepted", "rejected", "duplicate", "dead-lettered"}


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == RESULT


@pytest.mark.parametrize("text", ["", "[]", '{"benchmark": "deciding"}', '{"contests": [{}]}'])
def test_another_file_is_no_result(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(Fatal, match="holds no result"):
        Result.read(tmp_path / "other.json")


def test_a_change_is_clear_when_the_spreads_are_apart() -> None:
    slower, faster = changes(RESULT, with_ours(26_000, 27_000)), changes(RESULT, with_ours(23_000))
    assert [(one.contestant, one.is_clear) for one in slower] == [("ours", True)]
    assert [(one.ratio, one.is_clear) for one in faster] == [(23 / 22, False)]


@pytest.mark.parametrize(
    "other",
    [{"benchmark": "projecting"}, {"size": {"commands": 5}}, {"seed": 2}],
    ids=lambda other: next(iter(other)),
)
def test_runs_with_other_settings_are_not_compared(other: dict[str, object]) -> None:
    with pytest.raises(Fatal, match=f"cannot be compared: {next(iter(other))}"):
        changes(RESULT, replace(RESULT, **other))  # type: ignore[arg-type]


def test_compare_shows_both_runs(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    RESULT.write(before)
    with_ours(33_000, 33_000).write(after)
    shown = CliRunner().invoke(cqrs, ["bench", "compare", str(before), str(after)])
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.output.split())
    assert "ours commands/s 22,000 33,000 1.50 clear" in words
    assert "theirs" not in words  # the other run has none


def test_the_page_names_benchmark_machine_and_command(tmp_path: Path) -> None:
    RESULT.write(tmp_path / "result.json")
    page = tmp_path / "page.md"
    asked = ["bench", "report", str(tmp_path / "result.json"), "--output", str(page)]
    assert CliRunner().invoke(cqrs, asked).exit_code == 0
    text = page.read_text()
    assert text == markdown_of([RESULT], plots="page")
    assert (tmp_path / "page-deciding.png").read_bytes().startswith(b"\x89PNG")
    assert "![deciding: medians and spreads](page-deciding.png)" in text
    assert "| theirs | commands/s | 11,000 | 10,000 to 12,000 | 2.00 |" in text
    assert "cqrs bench deciding --size full --rounds 3 --seed 1 --output deciding.json" in text
    assert str(RESULT.machine["cpu"]) in " ".join(text.split())


@pytest.mark.parametrize("kept", sorted(RESULTS.iterdir()), ids=lambda kept: kept.name)
def test_a_page_in_docs_is_that_of_all_results_in_the_directory_of_its_name(kept: Path) -> None:
    docs = ROOT / "docs"
    results = [Result.read(file) for file in kept.iterdir()]
    assert {file.stem for file in kept.iterdir()} <= set(BENCHMARKS)
    assert (docs / f"{kept.name}.md").read_text() == markdown_of(results, plots=kept.name)
    for result in results:
        assert (docs / plot_name(kept.name, result)).exists()


def test_a_plot_without_shared_figures_shows_all_of_them(tmp_path: Path) -> None:
    alone = replace(RESULT, contests=[Contest("ours", "All.", {"p50 ms": [1.0], "p99 ms": [3.0]})])
    write_plot(alone, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_target_is_a_bound_for_a_figure_or_for_a_ratio() -> None:
    rate, ratio = (
        Target("commands/s", least=22_000, of="ours"),
        Target("commands/s", most=1.9, of="ours", to="theirs"),
    )
    assert rate.found(RESULT) == 22_000
    assert rate.is_met(22_000)
    assert not rate.is_met(21_999)
    assert ratio.found(RESULT) == 2.0
    assert ratio.is_met(1.9)
    assert not ratio.is_met(2.0)
    assert str(ratio) == "ours: commands/s: at most 1.9 times theirs"


@pytest.mark.parametrize(
    "target",
    [
        Target("documents/s", least=1, of="ours"),
        Target("commands/s", least=1, of="nobody"),
        Target("commands/s", least=1, of="ours", to="nobody"),
        Target("ms", least=1, of="ours", to="theirs"),
    ],
)
def test_a_target_without_its_figure_is_neither_met_nor_missed(target: Target) -> None:
    assert target.found(RESULT) is None


def test_the_page_says_which_targets_are_met() -> None:
    contests = [
        Contest("cqrs-streams", "", {"commands/s": [20_000.0]}),
        Contest("Kafka Streams", "", {"commands/s": [40_000.0]}),
        Contest("ordinary Faust agent", "", {"commands/s": [2000.0]}),
    ]
    page = markdown_of([replace(RESULT, contests=contests)])
    assert (
        "| deciding | commands/s: at least 1 times Kafka Streams | 0.50 | **missed** |\n"
        "| deciding | cqrs-streams, two processes: commands/s: at least 1.1 times Kafka Streams, "
        "two threads |  | not measured |\n"
        "| deciding | commands/s: at least 0.7 times plain aiokafka loop |  | not measured |\n"
        "| deciding | commands/s: at least 10 times ordinary Faust agent | 10.00 | met |\n"
    ) in page


def test_a_missing_package_is_an_error_with_what_to_install() -> None:
    need("click")
    with pytest.raises(Fatal, match=r"no_such_module not found: .*'\.\[bench,embedded\]'"):
        need("click", "no_such_module")


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_a_target_is_of_contestants_that_take_part(benchmark: Benchmark) -> None:
    names = {contestant.name for contestant in benchmark.contestants}
    for target in benchmark.targets:
        assert {target.of, target.to or target.of} <= names
