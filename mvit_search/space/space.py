"""`SearchSpace`: the candidates a search may propose, and the identity params <-> config.

Optuna parameters are flat strings that spell a config's own fields (`stages.2.transformer_dim`); a
dimension with a single value is part of the space, not a parameter.
"""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage, parse_config
from mvit_search.errors import InputError
from mvit_search.space.schema import Range, SpaceSpec, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Params = dict[str, Value]


class SearchSpace:
    """A validated space.

    Attributes:
        name: the file's stem.
        spec: what the file says.
        dimensions: parameter name -> its values in order; only what varies.
    """

    def __init__(self, name: str, spec: SpaceSpec) -> None:
        self.name = name
        self.spec = spec
        self._tree = {key: getattr(spec, key).values() for key in ("stem_channels", "head_expansion", "activation")}
        for index, stage in enumerate(spec.stages):
            for key in type(stage).model_fields:
                if key != "kind":
                    self._tree[f"stages.{index}.{key}"] = getattr(stage, key).values()
        self.dimensions: dict[str, tuple[Value, ...]] = {k: v for k, v in self._tree.items() if len(v) > 1}
        self._fixed: Params = {k: v[0] for k, v in self._tree.items() if len(v) == 1}
        self._check_every_stage()

    def digest(self) -> str:
        """sha256 over everything that decides what a parameter means; the description may change freely."""
        content = self.spec.model_dump(mode="json", exclude={"description"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def size(self) -> int:
        """Number of candidates."""
        return math.prod(len(values) for values in self.dimensions.values())

    def config(self, params: Mapping[str, Any]) -> MobileViTConfig:
        """The candidate that `params` spell.

        Raises:
            InputError: for a missing, surplus or out-of-range parameter.
        """
        if params.keys() != self.dimensions.keys():
            odd = sorted(params.keys() ^ self.dimensions.keys())[0]
            state = "is missing" if odd in self.dimensions else "is not a dimension of the space"
            raise InputError(f"space {self.name}: {odd}", None, state)
        for key, value in params.items():
            if value not in self.dimensions[key]:
                raise InputError(f"space {self.name}: {key}", value, f"must be one of {list(self.dimensions[key])}")
        return self._build({**self._fixed, **params})

    def params(self, config: MobileViTConfig) -> Params:
        """The parameters that spell `config`.

        Raises:
            InputError: naming the first field by which `config` lies outside the space.
        """
        flat = _flatten(config)
        if config.image_size != self.spec.image_size:
            raise InputError("image_size", config.image_size, f"space {self.name} has {self.spec.image_size}")
        kinds = [stage.kind for stage in config.stages]
        if kinds != [stage.kind for stage in self.spec.stages]:
            raise InputError("stages", kinds, f"space {self.name} has {[stage.kind for stage in self.spec.stages]}")
        for key, values in self._tree.items():
            if flat[key] not in values:
                raise InputError(key, flat[key], f"space {self.name} has {list(values)}")
        return {key: _same(values, flat[key]) for key, values in self.dimensions.items()}

    def __contains__(self, config: MobileViTConfig) -> bool:
        try:
            self.params(config)
        except InputError:
            return False
        return True

    def draw(self, rng: random.Random) -> Params:
        """Every dimension uniform and independent."""
        return {key: rng.choice(values) for key, values in self.dimensions.items()}

    def smallest(self) -> MobileViTConfig:
        """The corner with the fewest parameters: every number at its lowest, for no formula falls with any of them."""
        return self._build({key: min(v) if _numeric(v) else v[0] for key, v in self._tree.items()})

    def scaled(self, params: Params, share: float) -> Params:
        """`params` with every number moved towards its lowest: 1 leaves them, 0 gives the smallest corner's."""
        scaled = dict(params)
        for key, values in self.dimensions.items():
            if _numeric(values):
                ladder = sorted(values)
                scaled[key] = ladder[int(share * ladder.index(params[key]))]
        return scaled

    def distributions(self) -> dict[str, "BaseDistribution"]:
        """Optuna's view of the dimensions: integer ranges stay integers, the rest are categories."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        result: dict[str, BaseDistribution] = {}
        for key, values in self.dimensions.items():
            spec = self._spec_of(key)
            if isinstance(spec, Range):
                result[key] = IntDistribution(spec.low, spec.high, step=spec.step)
            else:
                result[key] = CategoricalDistribution(values)
        return result

    def _spec_of(self, key: str) -> Any:
        parts = key.split(".")
        return getattr(self.spec, key) if len(parts) == 1 else getattr(self.spec.stages[int(parts[1])], parts[2])

    def _build(self, flat: Mapping[str, Value]) -> MobileViTConfig:
        stages: list[dict[str, Any]] = [{"kind": stage.kind} for stage in self.spec.stages]
        data: dict[str, Any] = {"image_size": self.spec.image_size, "stages": stages}
        for key, value in flat.items():
            parts = key.split(".")
            target = data if len(parts) == 1 else stages[int(parts[1])]
            target[parts[-1]] = value
        return parse_config(data, source=f"space {self.name}")

    def _check_every_stage(self) -> None:
        """Build each stage's corners and every (dim, heads) pair once, so that no draw can fail later.

        The config's rules tie fields of one stage only; `transformer_dim` and `num_heads` are the one pair.
        """
        base: Params = {key: values[0] for key, values in self._tree.items()}
        for key, values in self._tree.items():
            for value in values:
                flat = {**base, key: value}
                if key.endswith((".transformer_dim", ".num_heads")):
                    continue
                self._build(flat)
        for index, stage in enumerate(self.spec.stages):
            if stage.kind != "mobilevit":
                continue
            dims, heads = (f"stages.{index}.transformer_dim", f"stages.{index}.num_heads")
            for dim, head in itertools.product(self._tree[dims], self._tree[heads]):
                self._build({**base, dims: dim, heads: head})


def _flatten(config: MobileViTConfig) -> Params:
    flat: Params = {key: getattr(config, key) for key in ("stem_channels", "head_expansion", "activation")}
    for index, stage in enumerate(config.stages):
        for key in (ConvStage if isinstance(stage, ConvStage) else MobileViTStage).model_fields:
            if key != "kind":
                flat[f"stages.{index}.{key}"] = getattr(stage, key)
    return flat


def _same(values: tuple[Value, ...], value: Value) -> Value:
    """The space's own spelling of `value`, so that 4 stays 4 where the config says 4.0."""
    return values[values.index(value)]


def _numeric(values: tuple[Value, ...]) -> bool:
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
