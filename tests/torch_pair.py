"""Two processes of one group of torch.distributed, which run functions of `torch_programs`."""

from __future__ import annotations

import traceback
import uuid
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

SECONDS = 300
"""How long a function may take, its kernels' compilation included."""


class Pair:
    """Two processes that last until `close`.

    Parameters
    ----------
    folder : Path
        Where they meet.
    """

    def __init__(self, folder: Path) -> None:
        from torch.multiprocessing import get_context

        context: Any = get_context("spawn")
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        place = str(folder / uuid.uuid4().hex)
        for rank in range(2):
            own, other = context.Pipe()
            process = context.Process(target=serve, args=(rank, place, other), daemon=True)
            process.start()
            self._pipes.append(own)
            self._processes.append(process)

    def __call__(self, program: str, *arguments: Any) -> list[Any]:
        """Run a function in both processes; return what each returns.

        Raises
        ------
        AssertionError
            It has failed; with the tracebacks.
        """
        for pipe in self._pipes:
            pipe.send((program, arguments))
        results: dict[int, Any] = {}
        patience, missing = SECONDS, dict(zip(self._pipes, range(2), strict=True))
        while missing and (ready := wait(list(missing), patience)):
            for pipe in ready:
                rank = missing.pop(pipe)
                try:
                    fine, results[rank] = pipe.recv()
                except EOFError:
                    fine, results[rank] = False, f"process {rank} has ended"
                if not fine:
                    patience = 5  # the other one may be waiting for it
        if missing or patience < SECONDS:
            self.close()
            raise AssertionError("\n".join(map(str, results.values())) or f"{program}: no result")
        return [results[rank] for rank in range(2)]

    @property
    def alive(self) -> bool:
        """Whether both processes can run functions."""
        return all(process.is_alive() for process in self._processes)

    def close(self) -> None:
        """End both processes."""
        for process in self._processes:
            process.kill()
            process.join()


def serve(rank: int, place: str, pipe: Any) -> None:
    """Run what comes through a pipe; the body of a process."""
    import torch
    import torch.distributed as dist
    import torch_programs

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{place}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=SECONDS),
    )
    while True:
        program, arguments = pipe.recv()
        try:
            pipe.send((True, getattr(torch_programs, program)(*arguments)))
        except BaseException:
            pipe.send((False, f"process {rank}: {traceback.format_exc()}"))
