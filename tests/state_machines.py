"""Hypothesis's state machines, run by a test case."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def run_machine(
    machine: type[RuleBasedStateMachine],
    examples: int,
    steps: int,
    *,
    is_random: bool = False,
    **attributes: object,
) -> None:
    """Run so many examples of so many steps, the same ones each time unless `is_random`.

    `attributes` are those of the machine, such as the test case to which it does things.
    """
    run_state_machine_as_test(
        type("BoundModel", (machine,), attributes),
        settings=settings(
            max_examples=examples,
            phases=[Phase.explicit, Phase.generate],
            stateful_step_count=steps,
            deadline=None,
            derandomize=not is_random,
            suppress_health_check=list(HealthCheck),
        ),
    )
