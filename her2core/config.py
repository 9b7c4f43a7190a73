"""The configuration of a run: defaults, then the YAML file, then ``HER2_...`` environment variables.

Text becomes frozen dataclasses here and nowhere else. Whatever is unknown, misspelt, of the wrong kind or out
of range is refused before any work starts, all of it in one message.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from her2core.columns import LADDER_STEPS
from her2core.errors import ConfigError
from her2core.grid import Grid
from her2core.guidelines.rules_case import require_one_tumour
from her2core.guidelines.rules_ihc import load_rules
from her2core.guidelines.rules_ish import ish_rules_for, load_ish_rules
from her2core.params import (
    FORBID_UNKNOWN,
    RENAMED,
    HeterogeneityParams,
    IHCParams,
    ISHParams,
    ISHScoreParams,
    OutlineParams,
    Prices,
    ProfileParams,
    PyramidParams,
    RoiParams,
    ScoreParams,
)
from her2core.pyramid.codecs import require_codec
from her2core.scoring.tumour import load_model, parse_model
from her2core.storage.s3 import check_endpoint
from her2core.storage.sources import Scratch, read_small
from her2core.storage.temporary import temporary_place
from her2core.strict_yaml import MAX_BYTES, YamlError, parse_yaml
from her2core.text import CARRIES_SECRET, carries_secret, check_viewer, cut, shown

log = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "HER2_"
OF_SERVICES = re.compile(
    r"HER2_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|NAME|ENV_\w+)"
)
"""Variables that Kubernetes and Docker set for a service named ``her2...``; none of ours looks so."""
LOOKS_MEANT = 0.75
"""Likeness (difflib) from which a variable is a misspelt one of ours, and not somebody else's. Ours."""
LIKE = 0.5
"""Likeness from which a section or key of a configuration is taken for a misspelt one. Ours."""
SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


MAX_PATH = 4096
"""Longest path, the most that Linux takes."""
LIMITS: dict[str, tuple[float, float]] = {
    "workers": (1, 1024),
    "slides_in_flight": (1, 1024),
    "tasks_in_flight": (1, 65_536),
    "retries": (0, 100),
    "retry_delay_s": (0, 86_400),
    "slide_timeout_s": (1, 2_592_000),
    "scratch_bytes": (1, 10**15),
    "metrics_port": (1, 65_535),
}
"""Least and most of every number that controls how a run is carried out. Ours."""
UNITS: dict[str, tuple[float, float]] = {
    "_um_px": (0, 1_000),
    "_um2": (0, 1e10),
    "_mm2": (0, 1e4),
    "_um": (0, 1e5),
    "_mpp": (0, 100),
    "_od": (0, 10),
    "_deg": (0, 180),
}
"""More than the first and at most the second, by ending: a slide's extent, the darkest pixel. Ours."""
SIZES: dict[str, tuple[float, float]] = {
    "pyramid.chunk": (16, 4_096),
    "pyramid.shard": (16, 32_768),
    "profile.sample_tiles": (1, 10_000),
    "profile.sample_tile_um": (8, 1_000),
    "ihc.expansion_um": (1, 25),
    "ihc.max_nucleus_um2": (10, 2_500),
    "ish.max_nucleus_um2": (10, 2_500),
    "ish.max_spot_um": (0.1, 5),
    "heterogeneity.region_um": (20, 10_000),
    "heterogeneity.sweep_um": (20, 10_000),
    "heterogeneity.biopsy_cores": (1, 100),
}
"""Least and most of what decides how much memory or time a slide takes. Ours."""
MOST = 1e12
"""No other number is larger. Ours."""
MAX_LIST = 64
"""Most entries of a list. Ours."""
MAX_PROBLEMS = 20
"""Most problems that one message lists. Ours."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is carried out. Nothing here changes a result or a content key."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    cohort: str | None = None
    """Name of the cohort in an output that holds several; slides that a later manifest of it no longer names
    leave the tables. If null, the address of the manifest identifies the cohort."""
    workers: int | None = None
    """Worker processes of the local cluster; if null one a core, fewer for a few small files in a folder."""
    slides_in_flight: int | None = None
    """Slides that are worked on at the same time, on each cluster; as many as it has workers (at least 4) if
    null."""
    tasks_in_flight: int = 64
    """Tasks of one slide that are on the cluster at the same time."""
    retries: int = 2
    """Times a slide is tried again after an error that may pass (lost worker, store not answering)."""
    retry_delay_s: float = 10.0
    """Pause before such a retry."""
    slide_timeout_s: float = 21600.0
    """Longest time one slide may take before it is recorded as failed."""
    scratch_dir: str | None = None
    """Local folder for slides that cannot be read by ranges; her2-scratch in the temporary folder if null."""
    scratch_bytes: int = 53_687_091_200
    """Most bytes of staged slides on one machine (50 GiB)."""
    pseudonyms: str | None = None
    """Table (CSV; path or s3://, outside the output) that resolves each pseudonym. With it, files
    and folders have pseudonyms in tables, journal, records and Prefect's database; else their names."""
    endpoint_url: str | None = None
    """S3 endpoint; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS itself, if null."""
    metrics_port: int | None = None
    """Port on which a run offers Prometheus metrics while it works; none if null."""
    json_logs: bool = False
    """Whether a run writes its log to standard output as JSON, one object a line."""
    report: bool = True
    """Whether a run ends with its report (docs/report.md); her2 report writes it at any time."""
    browse_url: str | None = None
    """Address (http or https) under which browsers reach the output, for Prefect's links to report and
    pictures. If null, links name the file of a folder; of a bucket, its endpoint's or AWS's console."""
    viewer_url: str | None = None
    """Address of a viewer (http or https) with {slide_id} where a slide's id belongs, for the report's
    links, as http://127.0.0.1:8765/#slide={slide_id} of her2 view --port 8765. No links if null."""

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                expected = f"{least:g} or more" if value < least else f"{most:,} at most"
                null = ", or null for one a core" if name == "workers" else ""
                raise ValueError(f"{name} is {shown(value)}; expected {expected}{null}")
        if self.cohort is not None and not (self.cohort.strip() and self.cohort.isprintable()):
            raise ValueError(f"cohort is {shown(self.cohort)}; expected a name, or null")
        if self.scratch_dir is not None:
            _check_folder(self.scratch_dir)
        if self.pseudonyms is not None and not 0 < len(self.pseudonyms.strip()) <= MAX_PATH:
            raise ValueError(f"pseudonyms is {shown(self.pseudonyms)}; expected the address of a CSV file")
        if self.pseudonyms is not None and carries_secret(self.pseudonyms):
            raise ValueError(f"pseudonyms {CARRIES_SECRET}")
        if self.endpoint_url is not None:
            check_endpoint(self.endpoint_url)
        if self.browse_url is not None:
            check_endpoint(self.browse_url, "browse_url")
        if self.viewer_url is not None:
            check_viewer(self.viewer_url, "viewer_url")

    def scratch(self) -> Scratch:
        """Where this machine stages slides."""
        folder = Path(self.scratch_dir).expanduser() if self.scratch_dir else None
        return Scratch(str(folder or temporary_place() / "her2-scratch"), self.scratch_bytes)


def _check_folder(folder: str) -> None:
    if not folder.strip() or not folder.isprintable() or len(folder) > MAX_PATH:
        raise ValueError(f"scratch_dir is {shown(folder)}; expected the path of a local folder")
    if "://" in folder:
        raise ValueError("scratch_dir is an address; expected the path of a local folder")


class Config(BaseModel):
    """Configuration of a run. Every key is optional."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    pyramid: PyramidParams = PyramidParams()
    """OME-Zarr pyramid."""
    profile: ProfileParams = ProfileParams()
    """Slide-global background, stain vectors, tissue mask and quality control."""
    ihc: IHCParams = IHCParams()
    """Measurement of cells on IHC slides."""
    ish: ISHParams = ISHParams()
    """Measurement of nuclei and signals on ISH slides."""
    roi: RoiParams = RoiParams()
    """Classes of drawn regions; changing it touches no pixel."""
    ihc_score: ScoreParams = ScoreParams()
    """From cells to IHC scores; changing it re-scores without touching a pixel."""
    ish_score: ISHScoreParams = ISHScoreParams()
    """From nuclei to ISH groups; changing it re-scores without touching a pixel."""
    heterogeneity: HeterogeneityParams = HeterogeneityParams()
    """From cells and nuclei to regions and heterogeneity; changing it touches no pixel."""
    outlines: OutlineParams = OutlineParams()
    """Outlines of cells and nuclei that are kept; changes no score."""
    prices: Prices = Prices()
    """Price list of her2 plan; changes no result."""
    run: RunSettings = RunSettings()
    """How the run is carried out; changes no result."""

    def resolved(self) -> dict[str, Any]:
        """Every value in force but prices, as plain JSON types: what is stored with the run. No secret."""
        plain: dict[str, Any] = json.loads(TypeAdapter(Config).dump_json(self, exclude={"prices"}))
        return plain


def load_config(uri: str | None = None, *, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    uri
        YAML file, as a path or ``s3://`` URI; the defaults apply without one.
    environment
        Where overrides such as ``HER2_IHC_SCORE__STRONG_OD=0.55`` are looked up; ``os.environ`` by default.
        They win over the file.

    Raises
    ------
    ConfigError
        Naming every unknown key with its nearest known one, and every value that is refused.
    """
    values = _renamed(_read(uri), uri) if uri is not None else {}
    origins = _merge_environment(values, os.environ if environment is None else environment)
    try:
        # Of JSON pydantic takes lists for tuples and is strict in all else: no text becomes a number.
        config = Config.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [_sentence(entry, origins) for entry in found[:MAX_PROBLEMS]]
        more = [f"... and {len(found) - MAX_PROBLEMS} more"] if len(found) > MAX_PROBLEMS else []
        named = uri or "configuration"
        raise ConfigError(f"{named}: " + "\n  ".join(["not usable:", *problems, *more])) from None
    try:
        if "rules" not in values.get("ish_score", {}):
            rules = ish_rules_for(load_rules(config.ihc_score.rules).tumour)
            keyed = dataclasses.replace(config.ish_score, rules=rules)
            config = config.model_copy(update={"ish_score": keyed})
        config = _with_model(config)
        _check_meaning(config)
    except ConfigError as error:
        raise ConfigError(f"{uri or 'configuration'}: {error}") from None
    return config


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the YAML file, for editors; published as ``docs/config.schema.json``."""
    return {"$schema": SCHEMA_ID, **Config.model_json_schema()}


def _with_model(config: Config) -> Config:
    """The configuration with the model itself in place of its address.

    So that what follows, content keys, workers and the row of the run, holds the one that was read.
    """
    named = config.ihc_score.tumour_model
    if not (named.endswith(".json") or "/" in named) or named.lstrip().startswith("{"):
        load_model(named)
        return config
    where = f"ihc_score.tumour_model {shown(named, MAX_PATH)}"
    try:
        data = read_small(named, config.run.endpoint_url, MAX_MODEL_BYTES)
        if len(data) > MAX_MODEL_BYTES:
            raise ConfigError(f"{where}: more than {MAX_MODEL_BYTES} bytes; expected a tumour model.")
        text = parse_model(data.decode("utf-8-sig"), shown(named, MAX_PATH)).text
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file; her2 learn-tumour writes one.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: not UTF-8; expected a model that her2 learn-tumour wrote.") from None
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error}") from error
    return config.model_copy(update={"ihc_score": dataclasses.replace(config.ihc_score, tumour_model=text)})


def _check_meaning(config: Config) -> None:
    """What no single value shows: geometry, names of codecs and rules, ranges that a unit implies."""
    for name in ("put_1000", "get_1000", "gb_month", "cpu_hour"):
        if not 0 <= (price := getattr(config.prices, name)) <= MOST:
            raise ConfigError(f"prices.{name} is {shown(price)}; expected 0 or more.")
    if not (config.prices.currency.isprintable() and 0 < len(config.prices.currency) <= MAX_CURRENCY):
        raise ConfigError(f"prices.currency is {shown(config.prices.currency)}; expected a sign or a code.")
    for section in RESULTS:
        params = getattr(config, section)
        for field in dataclasses.fields(params):
            _check_size(f"{section}.{field.name}", getattr(params, field.name))
    Grid(1, 1, config.pyramid.chunk, config.pyramid.shard)
    require_codec(config.pyramid.codec)
    require_one_tumour(load_rules(config.ihc_score.rules), load_ish_rules(config.ish_score.rules))
    ladder = list(config.ihc.ladder_od)
    if len(ladder) != LADDER_STEPS or ladder != sorted(set(ladder)) or ladder[0] <= 0:
        raise ConfigError(f"ihc.ladder_od is {ladder}; expected {LADDER_STEPS} ascending ODs above 0.")
    steps = {"ihc_score.detect_od": config.ihc_score.detect_od, "ihc.strong_od": config.ihc.strong_od}
    for name, value in steps.items():
        if value not in ladder:
            raise ConfigError(
                f"{name} is {value}; expected one of ihc.ladder_od, {ladder}. Choose one of these, or put "
                f"{value} in the place of one of them; cells are then measured again."
            )


RESULTS = tuple(section for section in Config.model_fields if section not in ("run", "prices"))
"""Sections that decide results."""


def _check_size(name: str, value: Any) -> None:
    """A length, an area or an optical density is above 0 and of this world; a fraction is between 0 and 1."""
    if isinstance(value, tuple | list):
        if len(value) > MAX_LIST:
            raise ConfigError(f"{name} has {len(value)} entries; expected {MAX_LIST} at most.")
        for entry in value:
            _check_size(name, entry)
    if name == "ihc_score.tumour_model":
        return  # a name, or a whole model: looked at where it is loaded
    if isinstance(value, str) and (len(value) > MAX_NAME or not value.isprintable()):
        raise ConfigError(f"{name} is {shown(value)}; expected a name of {MAX_NAME} characters at most.")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if name.endswith("_fraction") and not 0 <= value <= 1:
        raise ConfigError(f"{name} is {shown(value)}; expected a fraction from 0 to 1.")
    if name in SIZES:
        least, most = SIZES[name]
        if not least <= value <= most:
            raise ConfigError(f"{name} is {shown(value)}; expected {least:g} to {most:g}.")
    for ending, (above, most) in UNITS.items():
        if name.endswith(ending):
            if not value > above:
                raise ConfigError(f"{name} is {shown(value)}; expected more than {above:g}.")
            if value > most:
                raise ConfigError(f"{name} is {shown(value)}; expected {most:g} at most.")
            break
    if abs(value) > MOST:
        raise ConfigError(f"{name} is {shown(value)}; expected {MOST:g} at most.")


MAX_NAME = 128
"""Longest name, in characters. Ours."""
MAX_CURRENCY = 8
"""Longest name of a currency, in characters. Ours."""
MAX_MODEL_BYTES = 2**20
"""Longest file of a tumour model. Ours; one learned on ten slides has 4 kB."""


def _read(uri: str) -> dict[str, Any]:
    try:
        values = parse_yaml(read_small(uri, None, MAX_BYTES).decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file; expected a YAML configuration.") from None
    except YamlError as error:
        raise ConfigError(f"{uri}: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{uri}: cannot be read as YAML: not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{uri}: cannot be read: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{uri}: found {type(values).__name__}; expected sections {', '.join(_sections())}."
        )
    return {section: {} if part is None else part for section, part in values.items()}


def _renamed(values: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """What a file holds, its sections by their names of today."""
    found = dict(values)
    for old, new in RENAMED.items():
        if old not in found:
            continue
        if new in found:
            raise ConfigError(f"{uri}: sections {old} and {new} are one; expected {new} alone.")
        found[new] = found.pop(old)
        log.warning("%s: the section %s is called %s now; it was read", uri, old, new)
    return found


def _merge_environment(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Put ``HER2_SECTION__KEY`` values into the nested mapping; return which variable each key came from."""
    origins: dict[str, str] = {}
    known = list(_known())
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        old, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        section = RENAMED.get(old, old)
        name = f"{section}.{key}"
        if name not in known:
            if expected := _meant_variable(variable, known):
                raise ConfigError(
                    f"environment variable {variable[:MAX_NAME]}: unknown; did you mean {expected}?"
                )
            continue
        part = values.setdefault(section, {})
        if isinstance(part, dict):  # else validation reports what is wrong with the file
            try:
                part[key] = parse_yaml(environment[variable])
            except YamlError as error:
                raise ConfigError(f"environment variable {variable}: {error}") from None
            if name in origins:
                raise ConfigError(f"environment variables {origins[name]} and {variable} are one setting")
            origins[name] = variable
            if old != section:
                new = f"{ENVIRONMENT_PREFIX}{section.upper()}__{key.upper()}"
                log.warning("environment variable %s is called %s now; it was read", variable, new)
    return origins


def _meant_variable(variable: str, known: Sequence[str]) -> str | None:
    """Variable of ours that an unknown one may stand for; None for what others set, such as Kubernetes."""
    if OF_SERVICES.fullmatch(variable):
        return None
    variables = {ENVIRONMENT_PREFIX + name.upper().replace(".", "__"): name for name in known}
    named = "__" in variable.removeprefix(ENVIRONMENT_PREFIX)
    near = difflib.get_close_matches(
        variable[:MAX_NAME], variables, n=1, cutoff=0.0 if named else LOOKS_MEANT
    )
    return near[0] if near else None


def _sections() -> Iterator[str]:
    yield from Config.model_fields


def _known() -> Iterator[str]:
    for section, field in Config.model_fields.items():
        for key in dataclasses.fields(type(field.default)):
            yield f"{section}.{key.name}"


def _meant_key(name: str) -> str:
    """What an unknown section, or key of a section, may stand for; what there is where nothing is like it."""
    section, _, key = name.partition(".")
    if not key:
        known = [*_sections(), *RENAMED]
        near = difflib.get_close_matches(section, known, n=1, cutoff=LIKE)
        return (
            f"did you mean {RENAMED.get(near[0], near[0])}?" if near else f"expected {', '.join(_sections())}"
        )
    own = [one.partition(".")[2] for one in _known() if one.startswith(f"{section}.")]
    elsewhere = [one for one in _known() if one.endswith(f".{key}")]
    if elsewhere:
        return f"did you mean {' or '.join(elsewhere)}?"
    near = difflib.get_close_matches(key, own, n=1, cutoff=LIKE)
    return f"did you mean {section}.{near[0]}?" if near else f"expected {', '.join(own)}"


def _sentence(entry: Any, origins: Mapping[str, str]) -> str:
    """One line for one of pydantic's errors: where, what was found, what was expected."""
    name = ".".join(str(part) for part in entry["loc"])
    if entry["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{name}: unknown key; {_meant_key(name)}"
    found = shown(entry["input"])
    if entry["type"] == "dataclass_type":
        return f"{name}: found {found}; expected a mapping of keys to values"
    origin = origins.get(".".join(name.split(".")[:2]))
    source = f" (from {origin})" if origin else ""
    if entry["type"] == "value_error":
        return f"{name}: {cut(str(entry['ctx']['error']), 400)}{source}"
    words = f"{name}: found {found}{source}; {entry['msg'].removeprefix('Input ')}"
    if entry["type"] == "string_type":
        return f"{words}: write it in quotes"
    decimal_comma = isinstance(entry["input"], str) and re.fullmatch(r"\d{1,9},\d{1,9}", entry["input"])
    if entry["type"] in ("float_type", "int_type") and decimal_comma:
        return f"{words}: write a point, not a comma"
    return words


def document() -> str:
    """``docs/parameters.md``: every key with its default and meaning, from the classes themselves."""
    lines = [
        "# Parameters",
        "",
        "Every key of the configuration, its default and its meaning. This page comes from",
        "`python -m her2core.config document > docs/parameters.md`; a test compares it with the code. How to",
        "set them is on [configuration](configuration.md).",
    ]
    defaults = json.loads(TypeAdapter(Config).dump_json(Config()))
    definitions = json_schema()["$defs"]
    for section, field in Config.model_fields.items():
        keys = definitions[type(field.default).__name__]["properties"]
        lines += [
            "",
            f"## {section}",
            "",
            str(field.description),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for key, entry in keys.items():
            meaning = " ".join(entry["description"].split()).replace("|", "\\|")
            lines.append(f"| `{key}` | `{json.dumps(defaults[section][key])}` | {meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":  # python -m her2core.config schema > docs/config.schema.json
    schema = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    sys.stdout.write(document() if sys.argv[1:] == ["document"] else schema)
