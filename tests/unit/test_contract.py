"""The contract's own rules: parameters, error texts, and the checked-in configurations that must agree with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

import dressform_contract as contract
from dressform_contract import ERRORS, PARAMETERS, ContractError, Fault, validated_parameters

LEAF_OUTPUT = -1  # a type that the export fills in from the graph
TEMPLATE = Path(__file__).parents[2] / "model_repository"


def config(model: str) -> ModelConfig:
    return text_format.Parse((TEMPLATE / model / "config.pbtxt").read_text(), ModelConfig())


ENSEMBLES = [task for task in contract.TASK_INPUTS if config(task).platform == "ensemble"]


@given(value=st.one_of(st.floats(), st.integers(), st.booleans(), st.text(), st.none()))
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_valid_or_refused_by_name(name: str, value: object) -> None:
    parameter = PARAMETERS[name]
    try:
        kept = parameter.validated(value)
    except ContractError as error:
        assert name in str(error)
        assert parameter.allowed in str(error)
        return
    assert kept == value
    assert isinstance(value, bool) == (parameter.kind == "boolean")
    if parameter.kind in ("integer", "number"):
        assert parameter.minimum <= value <= parameter.maximum  # type: ignore[operator]
        assert math.isfinite(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", contract.TASK_INPUTS)
def test_defaults_are_allowed(task: contract.Task) -> None:
    for name, value in validated_parameters({}, task).items():
        assert value is None or PARAMETERS[name].validated(value) == value


def test_integers_are_numbers() -> None:
    assert validated_parameters({"guidance_scale": 7}, "inpaint")["guidance_scale"] == 7.0


def test_unknown_parameters_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ContractError, match="'guidance'.*did you mean guidance_"):
        validated_parameters({"guidance": 7}, "inpaint")
    assert validated_parameters({"id": "abc"}, "inpaint") == validated_parameters({}, "inpaint")


def test_a_task_takes_its_own_parameters_alone() -> None:
    assert set(validated_parameters({"category": "lower"}, "mask")) == set(contract.TASK_PARAMETERS["mask"])
    with pytest.raises(ContractError, match="mask takes no parameter 'seed': known are mask_grow, .*, category"):
        validated_parameters({"seed": 1}, "mask")
    with pytest.raises(ContractError, match="unknown parameter 'categorie': did you mean category"):
        validated_parameters({"categorie": "lower"}, "mask")
    for names in contract.TASK_PARAMETERS.values():
        assert set(names) <= set(PARAMETERS)


FIELDS = st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.from_regex(r"[\w.]{1,12}", fullmatch=True))


@given(code=st.sampled_from(sorted(ERRORS)), sentence=st.text(min_size=1), fields=FIELDS)
def test_a_fault_survives_its_journey(code: str, sentence: str, fields: dict[str, str]) -> None:
    fault = Fault(code, sentence.strip(), tuple(fields.items()))
    assert Fault.parse(f"in ensemble 'tryon', {fault}") == fault


def test_other_messages_are_no_faults() -> None:
    assert Fault.parse("connection refused") is None
    assert Fault.parse("DRESSFORM_NO_SUCH_CODE: x") is None


@pytest.mark.parametrize("task", contract.TASK_INPUTS)
def test_tasks_keep_the_contract(task: str) -> None:
    model = config(task)
    assert tuple(item.name for item in model.input) == contract.TASK_INPUTS[task]
    optional = tuple(item.name for item in model.input if item.optional)
    assert optional == contract.OPTIONAL_INPUTS[task]
    assert tuple(item.name for item in model.output) == contract.TASK_OUTPUTS[task]
    assert {item.name for item in model.output} <= set(contract.OUTPUTS)
    assert model.max_batch_size == 1


@pytest.mark.parametrize("task", ENSEMBLES)
def test_ensembles_wire_their_stages(task: str) -> None:
    """Each tensor of an ensemble is made once before it is used, and names and types are those of the stages."""
    ensemble = config(task)
    known = {item.name: item.data_type for item in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        stage = config(step.model_name)
        inputs = {item.name: item for item in stage.input}
        outputs = {item.name: item for item in stage.output}
        for tensor, source in step.input_map.items():
            assert source in known, f"{step.model_name} takes {source}, which no earlier stage makes"
            if inputs:  # the leaves' tensors are written by the export
                assert known[source] in (inputs[tensor].data_type, LEAF_OUTPUT)
        for tensor, target in step.output_map.items():
            assert target not in known or target in contract.OUTPUTS
            known[target] = outputs[tensor].data_type if outputs else LEAF_OUTPUT
        required = {name for name, item in inputs.items() if not item.optional}
        assert required <= set(step.input_map)
    assert set(contract.OUTPUTS) <= set(known)


def test_what_preprocess_admits_denoise_can_hold() -> None:
    """Jobs that wait in Triton's own queue are seen by no stage, so that nobody would renew their leases."""
    allowed = int(config("preprocess").parameters["max_jobs"].string_value)
    held = config("denoise")
    assert 0 < allowed <= held.sequence_batching.oldest.max_candidate_sequences <= held.max_batch_size


def test_the_window_is_open_to_any_client() -> None:
    """`jobs` answers once, `watch` as often as there is news; both take flat JSON, so no batch axis."""
    jobs, watch = config("jobs"), config("watch")
    assert not jobs.model_transaction_policy.decoupled
    assert watch.model_transaction_policy.decoupled
    assert jobs.max_batch_size == watch.max_batch_size == 0
    tensors = {(model.name, item.name): list(item.dims) for model in (jobs, watch) for item in model.input}
    of_jobs = ("action", "id", "rating", "comment")
    assert tensors == {("watch", "id"): [1]} | {("jobs", name): [1] for name in of_jobs}
    assert [item.name for item in jobs.input if item.optional] == ["id", "rating", "comment"]
    assert [item.name for item in (*jobs.output, *watch.output)] == ["jobs", "event"]


@pytest.mark.parametrize("task", ENSEMBLES)
def test_the_slot_reaches_every_stage_that_reports(task: str) -> None:
    """A stage that takes a slot gets the request's own; `denoise` may get it by way of `handover`."""
    steps = {step.model_name: step for step in config(task).ensemble_scheduling.step}
    assert steps["preprocess"].output_map["slot"] == "slot"
    takers = {name: step.input_map["slot"] for name, step in steps.items() if "slot" in step.input_map}
    assert "postprocess" in takers
    assert takers.keys() & {"denoise", "handover"}
    assert set(takers.values()) == {"slot"}
