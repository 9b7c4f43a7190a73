"""Configuration: precedence, refusals in words, and the published schema and tables."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest
import yaml

from her2core.config import Config, document, json_schema, load_config
from her2core.errors import ConfigError
from her2core.params import ScoreParams
from tests.conftest import ROOT, Bucket


def write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_defaults_then_file_then_environment(tmp_path: Path) -> None:
    uri = write(tmp_path, "ihc_score: {weak_od: 0.25, strong_od: 0.7}\nrun:\n")
    config = load_config(uri, environment={"HER2_IHC_SCORE__STRONG_OD": "0.65", "HOME": "/"})
    assert config.ihc_score == dataclasses.replace(ScoreParams(), weak_od=0.25, strong_od=0.65)
    assert load_config(environment={}) == Config()


def test_lists_and_null_from_the_environment() -> None:
    ladder = "[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9]"
    config = load_config(environment={"HER2_IHC__LADDER_OD": ladder, "HER2_RUN__WORKERS": "null"})
    assert config.ihc.ladder_od == (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9)
    assert config.run.workers is None


def test_it_is_read_from_a_bucket(s3: Bucket) -> None:
    from her2core.storage.store import Store

    Store(s3.uri).write_bytes("c.yaml", b"run: {retries: 7}")
    assert load_config(f"{s3.uri}/c.yaml").run.retries == 7


def test_the_resolved_record_is_plain_json_and_reads_back(tmp_path: Path) -> None:
    config = load_config(environment={"HER2_IHC_SCORE__STRONG_OD": "0.7"})
    resolved = config.resolved()
    assert json.loads(json.dumps(resolved)) == resolved
    assert resolved["ihc_score"]["strong_od"] == 0.7
    assert load_config(write(tmp_path, yaml.safe_dump(resolved)), environment={}) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    uri = write(tmp_path, "scor: {}\nihc_score: {strong: 1, weak_od: x}\npyramid: {chunk: 3.5}\nprofile: 7")
    with pytest.raises(ConfigError) as caught:
        load_config(uri, environment={})
    lines = str(caught.value).splitlines()
    assert set(map(str.strip, lines[1:])) == {
        "scor: unknown key; did you mean ihc_score?",
        "ihc_score.strong: unknown key; did you mean ihc_score.strong_od?",
        "ihc_score.weak_od: found 'x'; should be a valid number",
        "pyramid.chunk: found 3.5; should be a valid integer",
        "profile: found 7; expected a mapping of keys to values",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo: {}", "foo: unknown key; expected pyramid, profile, ihc, ish, roi, ihc_score, ish_score"),
        (
            "run: {strong_od: 1}",
            "run.strong_od: unknown key; did you mean ihc.strong_od or ihc_score.strong_od?",
        ),
        ("roi: {wxyz: 1}", "roi.wxyz: unknown key; expected "),
        (
            "[1]",
            "found list; expected sections pyramid, profile, ihc, ish, roi, ihc_score, ish_score",
        ),
        ("ihc_score: {weak_od: 0.3, weak_od: 0.2}", "line 1: weak_od is given twice"),
        ("ihc_score:\n\tweak_od: 1", "cannot be read as YAML"),
        ("ihc_score: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        ("ihc_score: {weak_od: 0.5}", "expected ascending numbers"),
        ("ihc_score: {weak_od: .nan}", "should be a finite number"),
        ("ihc_score: {rules: breast}", "not a rule set"),
        ("ihc_score: {tumour_model: crowds}", "is no model"),
        ("pyramid: {chunk: 500}", "expected a power of two"),
        ("pyramid: {shard: 5000}", "times a power of two"),
        ("pyramid: {codec: lz5}", "expected source, blosc-lz4"),
        ("profile: {min_sharp_fraction: 80}", "expected a fraction from 0 to 1"),
        ("profile: {tissue_um_px: -1}", "expected more than 0"),
        ("ihc: {ladder_od: [0.1, 0.2]}", "expected 8 ascending ODs"),
        ("ish: {black_probe: her2}", "black_probe 'her2', red_probe 'CEP17': expected HER2 and CEP17"),
        ("ish: {red_probe: HER2}", "expected HER2 and CEP17"),
        ("ish: {black_probe: CEP17, red_probe: null}", "or HER2 in black and null"),
        ("run: {slides_in_flight: 0}", "slides_in_flight is 0; expected 1 or more"),
        ("run: {workers: 0}", "or null for one a core"),
        ("run: {retries: -1}", "expected 0 or more"),
        ("run: {slide_timeout_s: 0}", "slide_timeout_s is 0.0; expected 1 or more"),
        ("run: {workers: 99999999999999999999}", "workers is 99999999999999999999; expected 1,024 at most"),
        ("run: {workers: 1" + "0" * 3000 + "}", "line 1: a number of 3001 digits"),
        ("run: {scratch_dir: s3://b/x}", "scratch_dir is an address; expected the path of a local folder"),
        (
            "run: {scratch_dir: " + "x" * 5000 + "}",
            "line 1: a value of 5000 characters",
        ),
        ("run: {scratch_dir: " + "x" * 20_000_000 + "}", "characters; expected 262144 at most"),
        ("run: {endpoint_url: 'http://h/?X-Amz-Signature=1'}", "endpoint_url carries a query"),
        ("ihc_score: {strong_od: yes}", "line 1: 'yes' means different things to different programs"),
        ("ihc_score:\n  calibration: no", "line 2: 'no' means different things"),
        ("ihc_score: {calibration: Off}", "'Off' means different things"),
        ("ihc_score: {min_cells: 020}", "'020' means different things"),
        ("ihc_score: {min_cells: 0x10}", "'0x10' means different things"),
        ("ihc_score: {min_cells: 1:30}", "'1:30' means different things"),
        ("ihc_score: {min_cells: 1_0}", "'1_0' means different things"),
        ("ihc_score: {min_cells: true}", "ihc_score.min_cells: found True; should be a valid integer"),
        ("ihc_score: {min_cells: 20.0}", "ihc_score.min_cells: found 20.0; should be a valid integer"),
        ("ihc_score: {min_cells: '20'}", "ihc_score.min_cells: found '20'; should be a valid integer"),
        ("ihc_score:\n  strong_od: 0,7", "found '0,7'; should be a valid number: write a point, not a comma"),
        ("ihc_score: {calibration: 2024}", "found 2024; should be a valid string: write it in quotes"),
        ("ihc_score: {detect_od: 0.12}", "ihc_score.detect_od is 0.12; expected one of ihc.ladder_od"),
        ("ihc: {strong_od: 0.65}", "ihc.strong_od is 0.65; expected one of ihc.ladder_od"),
        ("ihc: {expansion_um: 1000}", "ihc.expansion_um is 1000.0; expected 1 to 25"),
        ("ihc_score: {strong_od: 60}", "ihc_score.strong_od is 60.0; expected 10 at most"),
        ("ihc_score: {full_cells: 1000000000000000}", "expected 1e+12 at most"),
        ("pyramid: {chunk: 1048576, shard: 1048576}", "pyramid.chunk is 1048576; expected 16 to 4096"),
        ("ihc_score: {grid_od: [" + ", ".join(f"{i / 100}" for i in range(1, 99)) + "]}", "has 98 entries"),
        ("ihc_score: {calibration: " + "x" * 200 + "}", "expected a name of 128 characters at most"),
        ("? [a, b]\n: 1", "line 1: a key is a name, not a list"),
        ("1: 2", "1: unknown key"),
        ("2024-13-45: x", "2024-13-45: unknown key"),
        ("ihc_score: {calibration: 2024-13-45, weak: 1}", "ihc_score.weak: unknown key"),
        ("a: &a [x]\nrun: {workers: *a}", "line 1: anchors (&) and aliases (*) are not read"),
        ("run: {workers: !!int '5'}", "tags ('tag:yaml.org,2002:int') are not read"),
        ("ihc_score: {calibration: a\0b}", "cannot be read as YAML"),
        ("[" * 100_000, "more than 8 levels"),
        ("? " * 100_000, "more than 8 levels"),
        ("- " * 100_000, "more than 8 levels"),
        ("run: {" + "a: [" * 20, "more than 8 levels"),
        ("--- 1\n--- 2", "cannot be read as YAML"),
        ("{" + ", ".join(f"k{i}: 1" for i in range(500)) + "}", "... and 480 more"),
        ("run: {endpoint_url: localhost}", "expected http"),
    ],
)
def test_values_that_cannot_work_are_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(write(tmp_path, text), environment={})


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
                                                for a, b in pairwise("abcdefg")) + "run: {workers: *g}",
        "run: {workers: [" + ", ".join("x" * 9) + "]}",
        "run: {workers: '" + "x" * 4000 + "'}",
        "x" * 100_000,
        "x" * 100_000 + ": 1",
        "run: {endpoint_url: '" + "x" * 4000 + "'}",
        '"' + "x" * 100_000,
    ],
)  # fmt: skip
def test_a_message_does_not_grow_with_the_input(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text), environment={})
    assert len(str(caught.value)) < 800


def test_numbers_of_both_kinds_and_texts_in_quotes_are_taken(tmp_path: Path) -> None:
    uri = write(
        tmp_path,
        "ihc_score: {strong_od: 1, weak_od: +2.5e-1, calibration: 'no'}\nrun: {workers: ~, scratch_dir: ~/x}",
    )
    config = load_config(uri, environment={})
    assert (config.ihc_score.strong_od, config.ihc_score.weak_od, config.ihc_score.calibration) == (
        1.0,
        0.25,
        "no",
    )
    assert config.run.workers is None
    assert config.run.scratch().directory == str(Path.home() / "x")


@pytest.mark.parametrize(
    "variable",
    ["HER2_PORT", "HER2_PORT_8080_TCP", "HER2_PORT_8080_TCP_ADDR", "HER2_SERVICE_HOST",
     "HER2_SERVICE_PORT_HTTP", "HER2_RUN_SERVICE_PORT", "HER2_COHORT_PORT", "HER2_NAME", "HER2_HOME"],
)  # fmt: skip
def test_what_kubernetes_tells_of_services_is_no_configuration(variable: str) -> None:
    assert load_config(environment={variable: "tcp://10.0.0.1:8080"}) == Config()


@pytest.mark.parametrize(
    ("value", "words"),
    [("[0.05, 0.1", "cannot be read as YAML"), ("yes", "'yes' means different things"), ("{", "YAML")],
)
def test_a_malformed_variable_is_refused_in_words(value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"environment variable HER2_IHC_SCORE__STRONG_OD: .*{words}"):
        load_config(environment={"HER2_IHC_SCORE__STRONG_OD": value})


@pytest.mark.parametrize(
    ("key", "address", "words"),
    [
        ("endpoint_url", "http://me:hush@host", "carries credentials"),
        ("pseudonyms", "s3://me:hush@bucket/p.csv", "carries a user name, a signature or a password"),
        ("viewer_url", "https://host/{slide_id}?access_token=hush", "carries a token or a signature"),
        (
            "viewer_url",
            "https://host/#slide={slide_id}&X-Amz-Signature=hush",
            "carries a token or a signature",
        ),
    ],
)
def test_credentials_in_addresses_are_refused_and_not_repeated(
    tmp_path: Path, key: str, address: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(write(tmp_path, f"run: {{{key}: '{address}'}}"), environment={})
    assert "hush" not in str(caught.value)


def test_a_viewer_may_be_asked_by_a_query(tmp_path: Path) -> None:
    address = "https://host/open?slide={slide_id}&layer=cells"
    config = load_config(write(tmp_path, f"run: {{viewer_url: '{address}'}}"), environment={})
    assert config.run.viewer_url == address


@pytest.mark.parametrize("variable", ["HER2_IHC_SCORE_STRONG_OD", "HER2_IHC_SCORE__STRONGOD"])
def test_a_misspelt_variable_is_refused(variable: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}: unknown; did you mean HER2_IHC_SCORE__STRONG_OD"):
        load_config(environment={variable: "0.7"})


def test_a_bad_variable_is_named_as_the_source() -> None:
    with pytest.raises(ConfigError, match=r"found 'abc' \(from HER2_IHC_SCORE__STRONG_OD\)"):
        load_config(environment={"HER2_IHC_SCORE__STRONG_OD": "abc"})


def test_a_missing_file_is_refused_in_words() -> None:
    with pytest.raises(ConfigError, match=r"/no/such.yaml: no such file"):
        load_config("/no/such.yaml", environment={})


def test_the_published_schema_is_current_and_means_the_same() -> None:
    published = json.loads((ROOT / "docs" / "config.schema.json").read_text())
    assert published == json_schema(), "run: make docs"
    jsonschema.Draft202012Validator.check_schema(published)
    validator = jsonschema.Draft202012Validator(published)
    validator.validate(load_config(environment={}).resolved())
    assert not validator.is_valid({"ihc_score": {"strong": 0.7}})
    assert not validator.is_valid({"ihc_score": {"strong_od": "high"}})


def test_the_published_list_of_parameters_is_current_and_complete() -> None:
    page = document()
    assert (ROOT / "docs" / "parameters.md").read_text() == page, "run: make docs"
    sections = {part.partition("\n")[0]: part for part in page.split("## ")}
    for section, values in load_config(environment={}).resolved().items():
        for key in values:
            assert re.search(rf"^\| `{key}` \| .+ \| \w.+ \|$", sections[section], re.M), key


def test_a_section_is_read_by_its_old_name_with_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = write(tmp_path, "score: {weak_od: 0.25}")
    found = load_config(uri, environment={"HER2_SCORE__STRONG_OD": "0.65"})
    assert found == load_config(
        environment={"HER2_IHC_SCORE__WEAK_OD": "0.25", "HER2_IHC_SCORE__STRONG_OD": "0.65"}
    )
    assert [record.message for record in caplog.records] == [
        f"{uri}: the section score is called ihc_score now; it was read",
        "environment variable HER2_SCORE__STRONG_OD is called HER2_IHC_SCORE__STRONG_OD now; it was read",
    ]
    with pytest.raises(ConfigError, match="sections score and ihc_score are one; expected ihc_score alone"):
        load_config(write(tmp_path, "score: {weak_od: 0.25}\nihc_score: {weak_od: 0.3}"), environment={})
    with pytest.raises(ConfigError, match="HER2_IHC_SCORE__WEAK_OD and HER2_SCORE__WEAK_OD are one setting"):
        load_config(environment={"HER2_SCORE__WEAK_OD": "0.25", "HER2_IHC_SCORE__WEAK_OD": "0.3"})


def test_a_cohort_has_a_name_or_none() -> None:
    assert load_config(environment={"HER2_RUN__COHORT": "trial 7"}).run.cohort == "trial 7"
    with pytest.raises(ConfigError, match="expected a name, or null"):
        load_config(environment={"HER2_RUN__COHORT": "' '"})


def test_ish_rules_are_those_of_the_tumour_and_no_others() -> None:
    for rules in ("gastric_resection", "gastric_biopsy"):
        config = load_config(environment={"HER2_IHC_SCORE__RULES": rules})
        assert config.ish_score.rules == "ish_gastric_toga"
    mixed = {"HER2_IHC_SCORE__RULES": "gastric_biopsy", "HER2_ISH_SCORE__RULES": "ish_asco_cap_2018"}
    with pytest.raises(ConfigError, match="ish_asco_cap_2018 is for breast, gastric_biopsy for gastric"):
        load_config(environment=mixed)


def test_a_rule_set_that_is_none_is_refused_with_its_file(tmp_path: Path) -> None:
    uri = write(tmp_path, "ihc_score: {rules: nonsense}")
    with pytest.raises(ConfigError, match=r"ihc_score\.rules is 'nonsense'") as refused:
        load_config(uri, environment={})
    assert str(refused.value).startswith(f"{uri}: ")
