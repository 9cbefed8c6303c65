"""What gpuadapt wants to reach, and whether a run did."""

from __future__ import annotations

from typing import Any, NamedTuple

from gpuadapt.benchmark.timing import ratio


class Goal(NamedTuple):
    """Our speed as a multiple of another candidate's, on two cores, float32."""

    suite: str
    case: str
    against: str
    """How the candidates' names begin; the fastest of them counts."""
    least: float
    ours: str = "gpuadapt"


SMALL, LARGE, NARROW = (
    "1,000,000 x 64, 100,000 Zipf-like rows",
    "2,000,000 x 128, 65,536 Zipf-like rows",
    "5,000,000 x 16, 500,000 Zipf-like rows",
)
HUGE = "10,000,000 x 64, 100,000 Zipf-like rows"
GROWN = "5,000,000 x 64, 10,000 Zipf-like rows of 50,000"

GOALS = (
    Goal("dense", "adam, 1,000,000 elements", "torch fused", 1.8),
    Goal("dense", "adam, 1,000,000 elements", "deepspeed", 1.3),
    Goal("dense", "adam, 1,000,000 elements", "thinc", 10),
    Goal("dense", "adam, 50,000,000 elements", "torch fused", 1.0),
    Goal("dense", "adam, 50,000,000 elements", "limit", 0.9),
    Goal("dense", "adagrad, 10,000,000 elements", "limit", 0.9),
    Goal("dense", "rmsprop, 10,000,000 elements", "limit", 0.9),
    Goal("dense", "adadelta, 10,000,000 elements", "limit", 0.9),
    Goal("dense", "rmsprop, 10,000,000 elements", "torch", 5),
    Goal("dense", "adadelta, 10,000,000 elements", "torch", 5),
    Goal("dense", "adam, 10,000,000 elements", "optax jit", 1.8),
    Goal("many", "adam, 1,000 x 1,000", "torch fused", 15),
    Goal("many", "adam, 200 x 50,000", "torch fused", 1.3),
    Goal("many", "adam, a transformer, 50M", "torch fused", 1.0),
    Goal("many", "adam, a transformer, 50M", "limit", 0.85),
    *(
        Goal("formats", f"adam, 50,000,000 elements, {kept}", against, least)
        for kept, against, least in (
            ("bfloat16 state", "torch fused", 1.35),
            ("bfloat16 state", "limit", 0.85),
            ("8-bit state", "torch fused", 1.3),
            ("all bfloat16, stochastic", "torch fused", 1.3),
            ("all bfloat16, stochastic", "torch bfloat16 fused", 1.0),
            ("all bfloat16, split", "torch fused", 1.2),
        )
    ),
    *(Goal("rows", f"adam, {t}", "torch SparseAdam", 8) for t in (SMALL, LARGE, NARROW)),
    *(Goal("rows", f"adagrad, {table}", "fbgemm", 3) for table in (SMALL, LARGE)),
    *(
        Goal("rows", f"adagrad, {table}", "fbgemm row-wise", 2, "gpuadapt row-wise")
        for table in (SMALL, LARGE)
    ),
    *(Goal("rows", f"adam, {table}", "limit", 0.5) for table in (SMALL, LARGE, NARROW)),
    *(Goal("rows", f"adagrad, {table}", "limit", 0.5) for table in (SMALL, LARGE)),
    Goal("rows", f"adam, {GROWN}", "gpuadapt, small", 1 / 1.3),
    Goal("exact", f"exact adam, {SMALL}", "gpuadapt lazy", 1 / 3, "gpuadapt read and step"),
    Goal("exact", f"exact adam, {SMALL}", "gpuadapt dense", 3),
    Goal("exact", f"exact adam, {HUGE}", "gpuadapt lazy", 1 / 3, "gpuadapt read and step"),
    Goal("exact", f"exact adam, {HUGE}", "gpuadapt dense", 20),
    Goal("exact", f"exact adam, {GROWN}", "gpuadapt, small", 1 / 1.3),
)


MOST = {
    "step of 1,000 parameters with one element, gpuadapt, a dict": 300e-6,
    "step of 1,000 parameters with one element, gpuadapt, a dict of new gradients": 1e-3,
    "clipping by norm, 50,000,000 elements, over one read of them": 1.2,
    "adam, an MLP, 6 tensors, 0.12M: over torch fused's time": 0.65,
    "adam, 1,000,000 elements: over torch fused's time": 0.78,
    "adam, ResNet-18, 62 tensors, 11.7M: over torch fused's time": 0.96,
    "adam, a transformer, 150 tensors, 18.8M: over torch fused's time": 0.96,
    "adam, 1,000 x 1,000: over torch fused's time": 0.15,
    "adam, 6 x 100: a step": 40e-6,
    "adam, 1,000 x 1: above the kernel, each tensor": 1.5e-6,
    "bfloat16 network, 3,000 steps of Adam with lr 0.0002: gpuadapt stochastic, above float32": 1.0,
}
"""What entries of the suite "overhead", and figures of the suite "torch", may be at most."""


def verdicts(results: dict[str, Any]) -> list[str]:
    """A line for each goal that was measured."""
    lines = []
    for goal in GOALS:
        for case in results.get(goal.suite, ()):
            rivals = [name for name in case["times"] if name.startswith(goal.against)]
            two_cores = case["backend"] == "cpu" and results["machine"]["threads"] == 2
            if two_cores and case["name"] == goal.case and rivals and goal.ours in case["times"]:
                reached = min(ratio(case["times"], rival, goal.ours) for rival in rivals)
                who = "" if goal.ours == "gpuadapt" else f"{goal.ours} "
                verdict = "met" if reached >= goal.least else "MISSED"
                lines.append(
                    f"{goal.case}: {who}{reached:.2f}x {goal.against} (goal {goal.least:.3g}x), "
                    f"{verdict}"
                )
    entries = [*results.get("overhead", ())]
    entries += [figure for case in results.get("torch", ()) for figure in case.get("figures", ())]
    for entry in entries:
        verdict = judged(entry, results["machine"]["threads"])
        if verdict:
            measured = f"{entry['name']}: {entry['value']:.3g} {entry['unit']}"
            lines.append(
                f"{measured} (goal at most {MOST[entry['name']]:.3g} {entry['unit']}), {verdict}"
            )
    return lines


def judged(entry: dict[str, Any], threads: int) -> str:
    """Say whether a figure met its goal; nothing without a goal, or not on two cores."""
    most = MOST.get(entry["name"])
    if most is None or "value" not in entry or threads != 2:
        return ""
    return "met" if entry["value"] <= most else "MISSED"
