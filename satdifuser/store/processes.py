"""The processes that fill a store together: one alone, or those that torchrun or `accelerate launch` started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Processes:
    """This process among how many; alone unless told otherwise."""

    rank: int = 0
    world: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """As accelerate (or torchrun) started them."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=not torch.cuda.is_available())  # else it takes itself to be alone on a CPU
        return cls(state.process_index, state.num_processes)

    @property
    def main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def told(self, value: Any) -> Any:
        """What the main process says."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def gathered(self, values: list[Any]) -> list[Any]:
        """The lists of all, one after the other."""
        if self.world == 1:
            return values
        from accelerate.utils import gather_object

        found: list[Any] = gather_object(values)
        return found
