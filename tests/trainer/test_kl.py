import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from ahabench.trainer.kl import KLController, next_coefficient


def log(controller: KLController, **logs: float) -> None:
    controller.on_log(TrainingArguments(report_to="none"), TrainerState(), TrainerControl(), logs=logs)


def test_a_small_error_moves_the_coefficient_in_proportion() -> None:
    # error = 0.00055 / 0.0005 - 1 = 0.1; factor = 1 + 0.1 * 500 / 10,000 = 1.005
    assert next_coefficient(0.002, kl=0.00055, target=0.0005, horizon=10_000, n=500) == pytest.approx(0.00201)


def test_a_large_error_counts_as_a_fifth() -> None:
    # 1 + 0.2 * 2048 / 10,000 and 1 - 0.2 * 2048 / 10,000
    assert next_coefficient(1.0, kl=9.0, target=0.0005, horizon=10_000, n=2048) == pytest.approx(1.04096)
    assert next_coefficient(1.0, kl=0.0, target=0.0005, horizon=10_000, n=2048) == pytest.approx(0.95904)


def test_the_steps_of_a_rollout_compound_to_nearly_what_the_rollout_would_move_at_once() -> None:
    coefficient = 1.0
    for _ in range(8):
        coefficient = next_coefficient(coefficient, kl=9.0, target=0.0005, horizon=10_000, n=256)
    # (1 + 0.2 * 256 / 10,000)^8, where OpenRLHF moves by 1 + 0.2 * 2048 / 10,000 = 1.04096.
    assert coefficient == pytest.approx(1.0417, abs=1e-4)


def test_the_papers_run_can_at_most_multiply_its_coefficient_by_seven() -> None:
    coefficient = 1e-3
    for _ in range(49):
        coefficient = next_coefficient(coefficient, kl=1.0, target=5e-4, horizon=10_000, n=2048)
    assert coefficient == pytest.approx(1e-3 * 1.04096**49)


def test_the_controller_moves_with_every_logged_step() -> None:
    controller = KLController(0.001, 0.0005, 10_000, 500)
    log(controller, kl=0.00055)
    log(controller, kl=0.00045)
    # 1 + 0.1 / 20, then 1 - 0.1 / 20
    assert controller.coefficient == pytest.approx(0.001 * 1.005 * 0.995)


@pytest.mark.parametrize("logs", [{}, {"kl": float("nan")}, {"kl": float("inf")}, {"eval_kl": 1.0}])
def test_a_log_without_a_kl_moves_nothing(logs: dict[str, float]) -> None:
    controller = KLController(0.001, 0.0005, 10_000, 500)
    log(controller, **logs)
    assert controller.coefficient == 0.001


def test_without_a_target_the_coefficient_stays() -> None:
    controller = KLController(0.001, None, 10_000, 500)
    log(controller, kl=3.0)
    assert controller.coefficient == 0.001


def test_a_restored_controller_goes_on_where_it_was() -> None:
    controller = KLController(0.001, 0.0005, 10_000, 500)
    log(controller, kl=3.0)
    restored = KLController.from_state(controller.state())
    assert (restored.init, restored.coefficient) == (0.001, controller.coefficient)
    log(controller, kl=3.0)
    log(restored, kl=3.0)
    assert restored.coefficient == controller.coefficient != 0.001
