"""
Several blows of one kind to one server: what the long form is made of, and the short form one of each.

In: a kind, a variant, a directory.  Out: `Series`: a line for each blow; `Loss`.  `missing`: why a kind cannot be done here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.crash import blows, disks, shim, tracing
from tests.crash.disks import PowerDisk, SmallDisk
from tests.crash.scene import Plan, Scene
from tests.crash.variants import Variant

#: One of a kind: "power" is two cuts, one under load and one in a quiet moment.
KINDS = ("kill", "strace", "power", "full", "fault", "faultcut")
_NEEDS: dict[str, tuple[Callable[[], str | None], ...]] = {
    "kill": (),
    "strace": (tracing.missing,),
    "power": (disks.missing_for_power,),
    "full": (disks.missing_for_small,),
    "fault": (shim.missing,),
    "faultcut": (shim.missing, disks.missing_for_power),
}
#: Blows that one scene takes.
LENGTH = 8


@cache
def missing(kind: str) -> str | None:
    """Why blows of this kind cannot be done here; None when they can."""
    return next((reason for look in _NEEDS[kind] if (reason := look()) is not None), None)


@dataclass
class Series:
    """
    kind: of `KINDS`. seed: of all that is random. directory: empty, and only for this. sabotage: see `Plan`.
    begin: which of all system calls is the first to be struck at, so that several series reach all of them.
    """

    kind: str
    variant: Variant
    seed: str
    directory: Path
    sabotage: str = ""
    begin: int = 0
    length: int = LENGTH
    #: What was under way when a Loss was raised.
    doing: str = "start"
    _scene: Scene | None = None
    _disk: PowerDisk | SmallDisk | None = None
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def scene(self) -> Scene:
        """The scene, its server running."""
        if self._scene is None:
            if self.kind in ("power", "faultcut"):
                self._disk = PowerDisk(self.directory)
            elif self.kind == "full":
                self._disk = SmallDisk(self.directory)
            if self._disk is not None:
                self._disk.make()
            variant = self.variant.on_a_small_disk() if self.kind == "full" else self.variant
            plan = Plan(variant, self.seed, sabotage=self.sabotage, shimmed=self.kind.startswith("fault"))
            self._scene = Scene(self.directory, plan, self._disk)
            self._scene.start()
        return self._scene

    def blows(self, count: int) -> Iterator[str]:
        """So many, but fewer when the disk has enough mail; a line for each.  Raises Loss."""
        scene = self.scene()
        strikes = self._strikes(scene)
        for number in range(count):
            self.doing = f"{self.kind} number {number + 1}, seed {self.seed}"
            if number and scene.full:
                return
            told = strikes(number)
            yield f"{told}; {len(scene.notes.acknowledged())} acknowledged and there"

    def _strikes(self, scene: Scene) -> Callable[[int], str]:
        """What does the blow with this number."""
        # Whether it begins with an even or an odd number: a short series has each.
        first = self._chance.randrange(2)
        if self.kind == "kill":
            return lambda _: blows.kill(scene)
        if self.kind == "power":
            return lambda number: blows.power(scene, quiet=(number + first) % 2 == 0)
        if self.kind == "full":
            return lambda number: blows.full(scene, restart=(number + first) % 2 == 1)
        if self.kind == "strace":
            points = tracing.points(scene)
            return lambda number: tracing.strike(scene, points[(self.begin + number) % len(points)])
        faults = [(fault, once) for fault in blows.FAULTS for once in (True, False)]
        self._chance.shuffle(faults)

        def fail(number: int) -> str:
            fault, once = faults[number % len(faults)]
            self.doing += f": {fault}, {'once' if once else 'always'}"
            return blows.fault(scene, fault, once=once)

        return fail

    def close(self) -> None:
        """No server, no mount; the directory is the caller's to remove."""
        try:
            if self._scene is not None:
                self._scene.close()
        finally:
            if self._disk is not None:
                self._disk.close()

    def evidence(self, target: Path) -> None:
        """Keep the notes and the logs there; also after `close`."""
        if self._scene is not None:
            self._scene.evidence(target)

    def told(self) -> str:
        """The end of what the server has written."""
        return self._scene.server.told()[-3000:] if self._scene is not None else ""
