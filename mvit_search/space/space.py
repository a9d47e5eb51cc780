"""`SearchSpace`: the candidates a search may propose, and the identity params <-> config.

Optuna parameters are flat strings that spell a config's own fields (`stages.2.transformer_dim`), or knobs
(`width`); a dimension with a single value is part of the space, not a parameter.

Params always hold every dimension, also those whose condition does not hold; `config` does not look at these, and
`draw` and `params` hold them at their first value. So a sampler sees one flat box: Optuna's NSGA-II and TPE learn
only dimensions that all trials have, a resumed trial is told from a torn one by its keys, and equal networks have
equal params here. (Equal proposals of a sampler are found by the config's digest in any case.)
"""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mvit_search.architecture import ConvStage, MobileViTConfig, MobileViTStage, operators, parse_config
from mvit_search.errors import InputError
from mvit_search.space.branches import Branches
from mvit_search.space.checking import check_buildable, evaluated
from mvit_search.space.inverse import Inverse
from mvit_search.space.schema import Range, SpaceSpec, Value
from mvit_search.space.wiring import forms_of, wire

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Params = dict[str, Value]

_TOP = ("image_size", "stem_channels", "head_expansion", "activation")
_MOST_CORNERS = 256


class SearchSpace:
    """A validated space.

    Attributes:
        name: the file's stem.
        spec: what the file says.
        dimensions: parameter name -> its values in order; only what varies.
    """

    def __init__(self, name: str, spec: SpaceSpec) -> None:
        """Raises InputError, whose `field` is a path in the file, for a spec that contradicts itself."""
        self.name = name
        self.spec = spec
        self._wiring = wiring = wire(spec)
        check_buildable(spec, wiring)
        free = {key: wiring[key].values for key in forms_of(spec) if wiring[key].source is None}
        self.dimensions: dict[str, tuple[Value, ...]] = {key: values for key, values in free.items() if len(values) > 1}
        self._fixed = {key: values[0] for key, values in free.items() if len(values) == 1}
        # What is neither free nor fixed: all that has to be worked out for a candidate.
        self._dependent = [node for node in wiring.values() if node.source is not None or node.tests]
        self._branches = Branches(wiring, tuple(spec.knobs or ()))
        self._ladders = {k: ladders for k, ladders in self._branches.ladders().items() if k in self.dimensions}
        self._free_of_cost = self._branches.free_of_cost().intersection(self.dimensions)
        self._inverse = Inverse(name, wiring, tuple(spec.knobs or ()))
        self._kinds = tuple(stage.kind for stage in spec.stages)
        self._places = [(key, *_place(key)) for key in wiring if key not in (spec.knobs or {})]

    @cached_property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """Every (height, width) that a candidate can have, the smallest first."""
        sizes = {_size(value) for value in self._wiring["image_size"].domain}
        return tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size)))

    @property
    def image_size_max(self) -> tuple[int, int]:
        """The largest (height, width): what networks from outside the space are set beside it at."""
        return self.image_sizes[-1]

    def relative_size(self, config: MobileViTConfig) -> float:
        """Height of `config`'s images over the largest of the space: what a proxy's training size scales with."""
        return config.image_size[0] / self.image_size_max[0]

    def digest(self) -> str:
        """sha256 over everything that decides what a parameter means; the description may change freely."""
        # What a file does not use is left out, so that a new form changes the digest of no older file.
        content = self.spec.model_dump(mode="json", exclude={"description"}, exclude_none=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def size(self) -> int:
        """Number of distinct assignments of the parameters, where one whose condition does not hold has one value.

        This is the number of candidates, but for values of a knob that round to the same network.
        """
        return self._branches.count()

    def config(self, params: Mapping[str, Any]) -> MobileViTConfig:
        """The candidate that `params` spell.

        Raises:
            InputError: for a missing, surplus or out-of-range parameter.
        """
        for key, value in params.items():
            if value not in self.dimensions.get(key, ()):
                raise self._odd(params, key)
        if len(params) != len(self.dimensions):
            raise self._odd(params, next(key for key in self.dimensions if key not in params))
        return self._build(self._flat(params))

    def params(self, config: MobileViTConfig) -> Params:
        """The parameters that spell `config`; where several do, always the same ones.

        Raises:
            InputError: naming the first field by which `config` lies outside the space.
        """
        if config.image_size not in self.image_sizes:
            shown = " or ".join(str(size) for size in self.image_sizes)
            raise InputError("image_size", config.image_size, f"space {self.name} has {shown}")
        kinds = tuple(stage.kind for stage in config.stages)
        if kinds != self._kinds:
            raise InputError("stages", list(kinds), f"space {self.name} has {list(self._kinds)}")
        flat = _flatten(config)
        if not isinstance(self._wiring["image_size"].values[0], tuple):
            flat["image_size"] = config.image_size[0]
        return self._inverse.params(flat)

    def __contains__(self, config: MobileViTConfig) -> bool:
        try:
            self.params(config)
        except InputError:
            return False
        return True

    def draw(self, rng: random.Random) -> Params:
        """Every dimension uniform and independent; then spelled as `params` does."""
        return self._canonical({key: rng.choice(values) for key, values in self.dimensions.items()})

    @property
    def box_size(self) -> int:
        """Number of combinations of the dimensions' values, whatever conditions make equal: see `assignments`."""
        return math.prod(map(len, self.dimensions.values()))

    def assignments(self) -> Iterator[Params]:
        """Every distinct assignment once, in order; takes `box_size` steps."""
        for values in itertools.product(*self.dimensions.values()):
            params = dict(zip(self.dimensions, values, strict=True))
            if self._canonical(params) == params:
                yield params

    def taking_part(self, params: Params) -> Params:
        """`params` without the dimensions whose condition does not hold: these decide nothing of the network."""
        flat = self._flat(params)
        return {key: value for key, value in params.items() if self._wiring[key].active(flat)}

    def smallest(self) -> MobileViTConfig:
        """The candidate with the fewest parameters.

        Every dimension at its lightest, for no formula falls with any number; of several branches of conditions the
        lightest, exact up to 256 combinations of branches, beyond that for each set of connected conditions alone.
        """
        return self._smallest

    def scaled(self, params: Params, share: float) -> Params:
        """`params` with every number and knob that costs parameters moved towards its lightest: 1 leaves them.

        0 gives a network of `smallest`'s parameters. In between, categories stay, and what a condition looks at stays
        in its branch; so the number of parameters of the network never falls as `share` rises. Dimensions that cost
        no parameters (heads, patches, images, where nothing else follows them) stay at every share.
        """
        if share <= 0:
            kept = {key: params[key] for key in self._free_of_cost}
            return self._canonical({**self.params(self._smallest), **kept})
        if share >= 1:
            return dict(params)
        scaled = dict(params)
        for key, ladders in self._ladders.items():
            if key in self._free_of_cost:
                continue
            ladder = ladders[params[key]]
            scaled[key] = ladder[int(share * ladder.index(params[key]))]
        return self._canonical(scaled)

    @property
    def costly(self) -> tuple[str, ...]:
        """Dimensions whose value changes the number of parameters."""
        return tuple(key for key in self._ladders if key not in self._free_of_cost)

    def lighter(self, params: Params, key: str) -> tuple[Value, ...]:
        """The values of a dimension that cost less than the one in `params`, the lightest first."""
        ladder = self._ladders[key][params[key]]
        return tuple(ladder[: ladder.index(params[key])])

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

    def _odd(self, params: Mapping[str, Any], key: str) -> InputError:
        if key not in self.dimensions:
            return InputError(f"space {self.name}: {key}", None, "is not a dimension of the space")
        if key not in params:
            return InputError(f"space {self.name}: {key}", None, "is missing")
        rule = f"must be one of {list(self.dimensions[key])}"
        return InputError(f"space {self.name}: {key}", params[key], rule)

    def _flat(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Every field and knob, by flat name."""
        return evaluated({**self._fixed, **params}, self._dependent)

    def _canonical(self, params: Params) -> Params:
        return self._inverse.params(self._flat(params)) if self._dependent else params

    def _build(self, flat: Mapping[str, Any]) -> MobileViTConfig:
        stages: list[dict[str, Any]] = [{"kind": kind} for kind in self._kinds]
        data: dict[str, Any] = {"stages": stages}
        for key, stage, name in self._places:
            (data if stage is None else stages[stage])[name] = flat[key]
        data["image_size"] = _size(data["image_size"])
        return parse_config(data, source=f"space {self.name}")

    @cached_property
    def _smallest(self) -> MobileViTConfig:
        start, choices = self._branches.lightest(), self._branches.corners()
        if math.prod(map(len, choices)) <= _MOST_CORNERS:
            corners = [start.copy() for _ in range(math.prod(map(len, choices)))]
            for corner, chosen in zip(corners, itertools.product(*choices), strict=True):
                for part in chosen:
                    corner.update(part)
            return self._lightest_of(corners)
        for alternatives in choices:
            start = min(({**start, **part} for part in alternatives), key=lambda flat: _weight(self._corner(flat)))
        return self._corner(start)

    def _lightest_of(self, corners: list[dict[str, Any]]) -> MobileViTConfig:
        configs = [self._corner(corner) for corner in corners]
        return configs[0] if len(configs) == 1 else min(configs, key=_weight)

    def _corner(self, free: Mapping[str, Any]) -> MobileViTConfig:
        return self._build(evaluated(dict(free), self._dependent))

    def _spec_of(self, key: str) -> Any:
        if key in (self.spec.knobs or {}):
            return (self.spec.knobs or {})[key]
        stage, name = _place(key)
        return getattr(self.spec if stage is None else self.spec.stages[stage], name)


def _place(key: str) -> tuple[int | None, str]:
    """`stages.2.num_heads` -> (2, `num_heads`); `activation` -> (None, `activation`)."""
    stage, _, name = key.rpartition(".")
    return (int(stage.partition(".")[2]) if stage else None), name


def _size(value: Any) -> tuple[int, int]:
    """A side stands for the square."""
    return value if isinstance(value, tuple) else (value, value)


def _weight(config: MobileViTConfig) -> int:
    """Parameters with the papers' 1000 classes."""
    return sum(op.params for op in operators(config))


def _flatten(config: MobileViTConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {key: getattr(config, key) for key in _TOP}
    for index, stage in enumerate(config.stages):
        for key in (ConvStage if isinstance(stage, ConvStage) else MobileViTStage).model_fields:
            if key != "kind":
                flat[f"stages.{index}.{key}"] = getattr(stage, key)
    return flat
