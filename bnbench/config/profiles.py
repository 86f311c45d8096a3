"""Profiles: named variants of an experiment's size, one of which is in force.

    profile: quick
    profiles:
      quick: {seeds: 3, axes: {optim.lr: [0.1, 1.0]}}
      full:  {seeds: 8}

A profile is a patch on the file: its axes and its seeds stand in the place of the file's.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnbench.config import keys
from bnbench.config.check import nulls_are_empty
from bnbench.config.faults import Faults, found, listing, nearest
from bnbench.config.merge import merged_block
from bnbench.config.nodes import Entry, Mapping, Scalar, is_null


@dataclass(frozen=True, slots=True)
class Profile:
    """The profile that is in force."""

    name: str
    patch: Mapping


def chosen(root: Mapping, asked: Entry | None, faults: Faults) -> Profile | None:
    """The profile that `asked` (of the command line) or the file names; None without profiles."""
    given = root.entries.get("profiles")
    wanted = asked or root.entries.get("profile")
    node = nulls_are_empty(given.node) if given is not None else Mapping({}, root.origin)
    if not isinstance(node, Mapping):
        faults.add(node.origin, f"profiles must be a mapping, not {found(node)}")
        return None
    patches: dict[str, Mapping] = {}
    for name, entry in node.entries.items():
        patch = nulls_are_empty(entry.node)
        if not isinstance(patch, Mapping):
            faults.add(patch.origin, f"profiles.{name} must be a mapping, not {found(patch)}")
            continue
        for key, inner in patch.entries.items():
            if key not in keys.PROFILE_KEYS:
                faults.add(inner.origin, *keys.no_top_key(key, keys.PROFILE_KEYS, "a profile"))
        patches[name] = patch
    if wanted is None or is_null(wanted.node):
        if not patches:
            return None
        name = next(iter(patches))
        return Profile(name, patches[name])
    value = wanted.node.value if isinstance(wanted.node, Scalar) else None
    if isinstance(value, str) and value in patches:
        return Profile(value, patches[value])
    if given is None:
        faults.add(wanted.origin, "the file has no profiles", "profiles: names them")
    elif patches:
        close = nearest(value, patches) if isinstance(value, str) else None
        hint = f"did you mean {close}?" if close else None
        message = f"profile must be {listing(patches)}, not {found(wanted.node)}"
        faults.add(wanted.node.origin, message, hint)
    return None


def applied(root: Mapping, profile: Profile, faults: Faults) -> Mapping:
    """The file with the profile's patch on it."""
    entries = dict(root.entries)
    for key, entry in profile.patch.entries.items():
        old = entries.get(key)
        if key == "seeds":
            entries.pop("seed", None)
            entries[key] = entry
        elif key == "axes":
            entries[key] = Entry(entry.origin, _axes(old, entry))
        elif key in keys.BLOCKS:
            node = nulls_are_empty(entry.node)
            base = nulls_are_empty(old.node) if old is not None else Mapping({}, entry.origin)
            if not isinstance(node, Mapping):
                message = f"profiles.{profile.name}.{key} must be a mapping, not {found(node)}"
                faults.add(node.origin, message)
            elif isinstance(base, Mapping):  # else the base itself is at fault
                entries[key] = Entry(entry.origin, merged_block(key, base, node))
    return Mapping(entries, root.origin)


def _axes(old: Entry | None, new: Entry) -> Mapping:
    """The file's axes, those of the profile in their places."""
    node = nulls_are_empty(new.node)
    base = nulls_are_empty(old.node) if old is not None else Mapping({}, new.origin)
    inner = dict(base.entries) if isinstance(base, Mapping) else {}
    return Mapping(inner | (dict(node.entries) if isinstance(node, Mapping) else {}), new.origin)
