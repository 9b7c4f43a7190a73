"""The configuration of a run: defaults, then the YAML file, then ``HER2_...`` environment variables.

Text becomes frozen dataclasses here and nowhere else. Whatever is unknown, misspelt, of the wrong kind or out
of range is refused before any work starts, all of it in one message.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from her2core.errors import ConfigError
from her2core.grid import Grid
from her2core.guidelines.rules_case import require_one_tumour
from her2core.guidelines.rules_ihc import load_rules
from her2core.guidelines.rules_ish import ish_rules_for, load_ish_rules
from her2core.lake.schema import LADDER_STEPS
from her2core.params import (
    FORBID_UNKNOWN,
    HeterogeneityParams,
    IHCParams,
    ISHParams,
    IshScoreParams,
    ProfileParams,
    PyramidParams,
    RoiParams,
    ScoreParams,
)
from her2core.pyramid.codecs import codec
from her2core.storage.sources import Scratch, open_remote

ENVIRONMENT_PREFIX = "HER2_"
SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is carried out. Nothing here changes a result or a content key."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    cohort: str | None = None
    """Name of the cohort in an output that holds several; slides that a later manifest of it no longer names
    leave the tables. The address of the manifest tells cohorts apart if null."""
    workers: int | None = None
    """Worker processes of the local cluster; one a core if null."""
    slides_in_flight: int = 4
    """Slides that are worked on at the same time."""
    tasks_in_flight: int = 64
    """Shard tasks of one slide that are on the cluster at the same time."""
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
    endpoint_url: str | None = None
    """S3 endpoint; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS itself, if null."""

    def __post_init__(self) -> None:
        for name in ("slides_in_flight", "tasks_in_flight", "scratch_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("retries", "retry_delay_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; expected 1 or more, or null for one a core")
        if self.slide_timeout_s <= 0:
            raise ValueError(f"slide_timeout_s is {self.slide_timeout_s}; expected more than 0")
        if self.endpoint_url is not None and "@" in self.endpoint_url:
            raise ValueError("endpoint_url carries credentials; give those by the standard AWS chain")
        if self.endpoint_url is not None and not self.endpoint_url.startswith(("http://", "https://")):
            raise ValueError(f"endpoint_url is {self.endpoint_url!r}; expected http(s)://host[:port]")

    def scratch(self) -> Scratch:
        """Where this machine stages slides."""
        return Scratch(
            self.scratch_dir or str(Path(tempfile.gettempdir()) / "her2-scratch"), self.scratch_bytes
        )


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
    score: ScoreParams = ScoreParams()
    """From cells to IHC scores; changing it re-scores without touching a pixel."""
    ish_score: IshScoreParams = IshScoreParams()
    """From nuclei to ISH groups; changing it re-scores without touching a pixel."""
    heterogeneity: HeterogeneityParams = HeterogeneityParams()
    """From cells and nuclei to regions and heterogeneity; changing it touches no pixel."""
    run: RunSettings = RunSettings()
    """How the run is carried out; changes no result."""

    def resolved(self) -> dict[str, Any]:
        """Every value in force, as plain JSON types: what is stored with the run. It holds no secret."""
        plain: dict[str, Any] = json.loads(TypeAdapter(Config).dump_json(self))
        return plain


def load_config(uri: str | None = None, *, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration.

    Parameters
    ----------
    uri
        YAML file, as a path or ``s3://`` URI; the defaults apply without one.
    environment
        Where overrides such as ``HER2_SCORE__STRONG_OD=0.55`` are looked up; ``os.environ`` by default. They
        win over the file.

    Raises
    ------
    ConfigError
        Naming every unknown key with its nearest known one, and every value that is refused.
    """
    values = _read(uri) if uri is not None else {}
    origins = _merge_environment(values, os.environ if environment is None else environment)
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems = [_sentence(entry, origins) for entry in error.errors(include_url=False)]
        raise ConfigError(f"{uri or 'configuration'}: " + "\n  ".join(["not usable:", *problems])) from None
    if "rules" not in values.get("ish_score", {}):
        rules = ish_rules_for(load_rules(config.score.rules).tumour)
        keyed = dataclasses.replace(config.ish_score, rules=rules)
        config = config.model_copy(update={"ish_score": keyed})
    _check_meaning(config)
    return config


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the YAML file, for editors; published as ``docs/config.schema.json``."""
    return {"$schema": SCHEMA_ID, **Config.model_json_schema()}


def _check_meaning(config: Config) -> None:
    """What single values cannot tell: geometry, names of codecs and rules, ranges that a unit implies."""
    Grid(1, 1, config.pyramid.chunk, config.pyramid.shard)
    codec(config.pyramid.codec)
    require_one_tumour(load_rules(config.score.rules), load_ish_rules(config.ish_score.rules))
    ladder = config.ihc.ladder_od
    if len(ladder) != LADDER_STEPS or list(ladder) != sorted(set(ladder)) or ladder[0] <= 0:
        raise ConfigError(f"ihc.ladder_od is {list(ladder)}; expected {LADDER_STEPS} ascending ODs above 0.")
    for section in ("profile", "ihc", "ish", "score", "ish_score", "heterogeneity"):
        params = getattr(config, section)
        for field in dataclasses.fields(params):
            _check_unit(f"{section}.{field.name}", getattr(params, field.name))


def _check_unit(name: str, value: Any) -> None:
    """A length, an area or an optical density is above 0, and a fraction is between 0 and 1."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if name.endswith("_fraction") and not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}; expected a fraction from 0 to 1.")
    if name.endswith(("_um", "_um2", "_mm2", "_um_px", "_od", "_deg")) and value <= 0:
        raise ConfigError(f"{name} is {value}; expected more than 0.")


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice; plain YAML keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise ConfigError(f"line {key_node.start_mark.line + 1}: {key_node.value} is given twice.")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _read(uri: str) -> dict[str, Any]:
    try:
        with open_remote(uri) as file:
            text = file.read().decode()
        values = yaml.load(text, _UniqueKeyLoader)  # noqa: S506, it is a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{uri}: {error}") from None
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file; expected a YAML configuration.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{uri}: cannot be read as YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{uri}: found {type(values).__name__}; expected sections {', '.join(_sections())}."
        )
    return {section: {} if part is None else part for section, part in values.items()}


def _merge_environment(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Put ``HER2_SECTION__KEY`` values into the nested mapping; return which variable each key came from."""
    origins = {}
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        section, _, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        name = f"{section}.{key}"
        known = list(_known())
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            expected = ENVIRONMENT_PREFIX + near.upper().replace(".", "__")
            raise ConfigError(f"environment variable {variable}: unknown; did you mean {expected}?")
        part = values.setdefault(section, {})
        if isinstance(part, dict):  # else validation says what is wrong with the file
            part[key] = yaml.safe_load(environment[variable])
            origins[name] = variable
    return origins


def _sections() -> Iterator[str]:
    yield from Config.model_fields


def _known() -> Iterator[str]:
    for section, field in Config.model_fields.items():
        for key in dataclasses.fields(type(field.default)):
            yield f"{section}.{key.name}"


def _sentence(entry: Any, origins: Mapping[str, str]) -> str:
    """One line for one of pydantic's errors: where, what was found, what was expected."""
    name = ".".join(str(part) for part in entry["loc"])
    if entry["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = list(_sections()) if "." not in name else list(_known())
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        return f"{name}: unknown key; did you mean {near[0]}?"
    if entry["type"] == "dataclass_type":
        return f"{name}: found {entry['input']!r}; expected a mapping of keys to values"
    origin = origins.get(".".join(name.split(".")[:2]))
    source = f" (from {origin})" if origin else ""
    if entry["type"] == "value_error":
        return f"{name}: {entry['ctx']['error']}{source}"
    return f"{name}: found {entry['input']!r}{source}; {entry['msg'].removeprefix('Input ')}"


def document() -> str:
    """``docs/parameters.md``: every key with its default and meaning, from the classes themselves."""
    lines = [
        "# Parameters",
        "",
        "Every key of the configuration, its default and its meaning. This page comes from",
        "`python -m her2core.config document > docs/parameters.md`; a test compares it with the code. How to",
        "set them is on [configuration](configuration.md).",
    ]
    defaults = Config().resolved()
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
