"""`meterhouse.toml`, with environment variables over it: what a person may set, with its default
and its meaning.

Secrets are read from the environment only. An unknown setting is an error that names the nearest
known one.
Relative paths are relative to the file. Contract, "Settings".
"""

import difflib
import hashlib
import os
import tomllib
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

FILE_NAME = "meterhouse.toml"
PREFIX = "METERHOUSE_"


class SettingsError(ValueError):
    """A setting that can't be used; the text says which and what to write instead."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Warehouse(Section):
    """`cache`, `cache_gib`: where a root in an object store keeps what this machine reads of it,
    and how much of that for longer than an hour.
    """

    root: str = "data"
    cache: str = "cache"
    cache_gib: float = Field(default=20, gt=0)
    credits_per_usd: int = Field(default=100, gt=0)


class Limits(Section):
    """What of request logs may be read: a line longer than `line_bytes` is set aside by itself; an
    object that unpacks to more than `unpacked_gib`, or (beyond 64 MiB) than `unpacked_ratio` times
    its size, as a whole.
    """

    line_bytes: int = Field(default=1_048_576, ge=1024)
    unpacked_gib: float = Field(default=64, gt=0)
    unpacked_ratio: int = Field(default=1_000, ge=10)

    def allow(self, unpacked: int, packed: int) -> bool:
        """Whether an object of so many bytes may unpack to so many."""
        most = min(self.unpacked_gib * 2**30, 64 * 2**20 + self.unpacked_ratio * max(1, packed))
        return unpacked <= most


class RequestSource(Section):
    """One source of request logs; `gateway` says whose request ids these are."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    gateway: str = ""
    format: str
    location: str
    workspace_id: str | None = None
    time_zone: str | None = None
    playground_history_days: int = Field(default=0, ge=0)  # 0: nothing that was said is kept
    token: SecretStr | None = None  # of a source that is an API


class Folder(Section):
    location: str


class Stripe(Section):
    api_base: str = "https://api.stripe.com"
    exports: str = "landing/stripe"
    api_key: SecretStr | None = None

    @property
    def livemode(self) -> bool:
        """The warehouse's mode: that of the key, live without one (reconciliation, section 2)."""
        if self.api_key is None:
            return True
        return not self.api_key.get_secret_value().startswith(("sk_test_", "rk_test_"))


class Reconciliation(Section):
    settle_days: int = Field(default=3, ge=0)
    pending_days: int = Field(default=14, ge=0)


class Credits(Section):
    """What becomes of credits whose money went back: a refund takes its part of the pack, or is
    waived; an open dispute holds its part, or is ignored until it is lost.
    """

    refund: Literal["clawback", "waive"] = "clawback"
    dispute: Literal["hold", "ignore"] = "hold"


class EmailSink(Section):
    """`tls`: "offered" encrypts where the server can (always on port 465), "required" sends nothing
    to one that can't. A password is never sent in the clear.
    """

    smtp_host: str = "localhost"
    smtp_port: int = 25
    sender: str = "meterhouse@localhost"
    recipients: list[str] = Field(min_length=1)
    tls: Literal["offered", "required"] = "offered"
    username: str | None = None
    password: SecretStr | None = None


class SlackSink(Section):
    """`url`: of an incoming webhook; whoever has it may post, so it is a secret."""

    url: SecretStr


class WebhookSink(Section):
    """`secret`: what the events are signed with; without one nobody could tell ours from others."""

    url: str = Field(pattern=r"^https?://")
    secret: SecretStr = Field(min_length=1)


class Alerts(Section):
    """What is out of range, and the sinks told of it: each `[alerts.<sink>]` is a file
    `exports/alerts/<sink>.py`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    exceed_percent: float = Field(default=50, ge=0)
    floor_credits: float = Field(default=10, ge=0)
    sensitivity: Literal["low", "normal", "high"] = "normal"
    budget_percents: list[Annotated[int, Field(gt=0, le=1000)]] = []  # of whom nobody set any
    email: EmailSink | None = None
    slack: SlackSink | None = None
    webhook: WebhookSink | None = None

    @property
    def sinks(self) -> dict[str, Any]:
        """The settings of each sink that is configured, by the sink's name."""
        named: dict[str, Any] = dict(self.model_extra or {})
        known = {"email": self.email, "slack": self.slack, "webhook": self.webhook}
        return named | {name: sink for name, sink in known.items() if sink is not None}


class Exports(Section):
    """Where the night puts files for elsewhere, and which: usage_by_model, usage_by_key,
    usage_by_member, usage, requests.
    """

    location: str = "data/exports"
    nightly: list[str] = ["usage_by_model", "usage_by_key", "usage_by_member"]


class Settings(Section):
    warehouse: Warehouse = Warehouse()
    requests: list[RequestSource] = []
    directory: Folder = Folder(location="landing/directory")
    invoices: Folder = Folder(location="landing/invoices")
    stripe: Stripe = Stripe()
    reconciliation: Reconciliation = Reconciliation()
    credits: Credits = Credits()
    alerts: Alerts = Alerts()
    exports: Exports = Exports()
    limits: Limits = Limits()
    folder: Path = Path()

    def path(self, location: str) -> Path:
        """A location of the settings as a path; relative ones are relative to `meterhouse.toml`.

        Raises SettingsError for a location that is no folder of this machine.
        """
        if "://" in location:
            raise SettingsError(
                f"'{location}' can't be used here: write a folder of this machine, or, for what is "
                "read, the root and the exports, s3://bucket/prefix."
            )
        return (self.folder / location).resolve()

    def place(self, location: str) -> Path | str:
        """Where something arrives or goes: a path, or a place in an object store as it stands."""
        return location if location.startswith("s3://") else self.path(location)

    @property
    def root(self) -> Path:
        """The folder of this machine in which DuckDB finds the tables. Raises SettingsError for one
        in which it can't.
        """
        if self.warehouse.root.startswith("s3://"):
            name = hashlib.sha256(self.warehouse.root.rstrip("/").encode()).hexdigest()[:12]
            folder = self.path(self.warehouse.cache) / name
        else:
            folder = self.path(self.warehouse.root)
        if "?" in str(folder):
            raise SettingsError(
                f"{folder} can't hold a warehouse: DuckDB cuts the names of its files at '?'. Name "
                "another folder."
            )
        return folder

    @property
    def dagster_home(self) -> Path:
        """Beside `meterhouse.toml` (contract)."""
        return Path(os.environ.get("DAGSTER_HOME") or self.folder.resolve() / "dagster_home")

    def parameters(self) -> dict[str, object]:
        """The settings that SQL files may name: `$<section>_<name>`."""
        return {
            "requests_sources": sorted(source.name for source in self.requests),
            "warehouse_credits_per_usd": self.warehouse.credits_per_usd,
            "reconciliation_settle_days": self.reconciliation.settle_days,
            "reconciliation_pending_days": self.reconciliation.pending_days,
            "credits_refund": self.credits.refund,
            "credits_dispute": self.credits.dispute,
            "alerts_exceed_percent": self.alerts.exceed_percent,
            "alerts_floor_credits": self.alerts.floor_credits,
            "alerts_sensitivity": self.alerts.sensitivity,
            "alerts_budget_percents": sorted(set(self.alerts.budget_percents)),
            "stripe_livemode": self.stripe.livemode,
        }


# Read elsewhere (contract, "Settings").
OTHER_VARIABLES = {
    "METERHOUSE_AS_OF",
    "METERHOUSE_CONFIG",
}
SECRETS = (
    ("stripe", "api_key"),
    ("alerts", "email", "password"),
    ("alerts", "slack", "url"),
    ("alerts", "webhook", "secret"),
)


def load(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of `file` (default: `meterhouse.toml` here), with the environment over them.

    Raises SettingsError with one sentence that says what is wrong and what to do.
    """
    path = file or Path(environment.get("METERHOUSE_CONFIG") or FILE_NAME)
    if not path.is_file():
        raise SettingsError(
            f"There is no {path}: run 'meterhouse init' to write one, or name yours with --config."
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not readable TOML: {error}.") from None
    for secret in SECRETS:
        if _dig(values, secret) is not None:
            variable = PREFIX + "_".join(secret).upper()
            raise SettingsError(
                f"{path} holds {'.'.join(secret)}: secrets are read from the environment only, "
                f"set {variable} and take the line out."
            )
    for source in values.get("requests", []):
        if isinstance(source, dict) and "token" in source:
            variable = f"{PREFIX}REQUESTS_{_as_variable(str(source.get('name'))).upper()}_TOKEN"
            raise SettingsError(
                f"{path} holds the token of a [[requests]] source: secrets are read from the "
                f"environment only, set {variable} and take the line out."
            )
    for name in values:
        if name not in Settings.model_fields or name == "folder":
            raise SettingsError(f"{path}: unknown setting '{name}'.{_nearest(name)}")
    _overlay(values, environment)
    for source in values.get("requests", []):
        if isinstance(source, dict):
            source.setdefault("gateway", source.get("name", ""))
    for name, value in values.get("alerts", {}).items():
        if name not in Alerts.model_fields and not isinstance(value, dict):
            place = f"alerts.{name}"
            raise SettingsError(f"{path}: unknown setting '{place}'.{_nearest(place)}")
    try:
        settings = Settings(**values, folder=path.parent)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_sentence(error)}") from None
    for source in settings.requests:
        try:
            zoneinfo.ZoneInfo(source.time_zone or "UTC")
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingsError(
                f"{path}: the time_zone of [[requests]] source '{source.name}' is "
                f"'{source.time_zone}', no time zone there is."
                f"{_nearest_zone(str(source.time_zone))}"
            ) from None
    names = [source.name for source in settings.requests]
    if len(names) != len(set(names)):
        raise SettingsError(f"{path}: two [[requests]] sources share a name; names must differ.")
    return settings


def _dig(values: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        if not isinstance(values, dict):
            return None
        values = values.get(name)
    return values


def _overlay(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Writes every METERHOUSE_<SECTION>_<NAME> of the environment over the file's values."""
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES:
            continue
        rest = variable.removeprefix(PREFIX).lower()
        section, _, name = rest.partition("_")
        if section == "requests":
            sources = values.get("requests", [])
            fits = [s for s in sources if name.startswith(_as_variable(s.get("name", "")) + "_")]
            if not fits:
                raise SettingsError(f"{variable}: no [[requests]] source of that name is set.")
            source = max(fits, key=lambda s: len(s["name"]))
            field = name.removeprefix(_as_variable(source["name"]) + "_")
            source[field] = text
            continue
        known = section in Settings.model_fields and section != "folder"
        target = values.setdefault(section, {}) if known else None
        if not isinstance(target, dict):
            raise SettingsError(f"{variable}: there is no such setting.{_nearest(rest)}")
        if section == "alerts" and name not in Alerts.model_fields and "_" in name:
            sink, _, name = name.partition("_")
            target = target.setdefault(sink, {})
        listed = name == "recipients" or (section, name) in (
            ("exports", "nightly"),
            ("alerts", "budget_percents"),
        )
        target[name] = [part.strip() for part in text.split(",")] if listed else text


def _as_variable(name: str) -> str:
    return name.lower().replace("-", "_")


def _known() -> dict[str, str]:
    """Every known setting by its dotted name."""
    known = {}
    for section, field in Settings.model_fields.items():
        model = field.annotation
        if section == "requests":
            model = RequestSource
        for candidate in (model, *get_args(model)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                for name in candidate.model_fields:
                    known[f"{section}.{name}"] = f"{section}.{name}"
        known[section] = section
    for sink in ("email", "slack", "webhook"):
        model = {"email": EmailSink, "slack": SlackSink, "webhook": WebhookSink}[sink]
        for name in model.model_fields:
            known[f"alerts.{sink}.{name}"] = f"alerts.{sink}.{name}"
    return known


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, list(_known()), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def _nearest_zone(name: str) -> str:
    close = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else " Write one like 'Europe/London'."


def _sentence(error: ValidationError) -> str:
    """The first complaint of pydantic, as a sentence about a setting."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    if first["type"] == "extra_forbidden":
        return f"unknown setting '{place}'.{_nearest(place)}"
    if first["type"] == "missing":
        variable = PREFIX + place.replace(".", "_").upper()
        is_secret = tuple(place.split(".")) in SECRETS
        return f"'{place}' is missing" + (f": set {variable}." if is_secret else ".")
    return f"'{place}' can't be used: {first['msg'][:1].lower()}{first['msg'][1:]}."
