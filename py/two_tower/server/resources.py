"""Settings of the embedded server that depend on the machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def _memory() -> int:
    """Bytes of memory that this machine or container may use."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.exists() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def resources(durable: bool) -> dict[str, str]:
    """Settings by the size of the machine. Throwaway clusters are small, since several may run at the same time."""
    mb = _memory() >> 20
    maintenance = min(max(mb // 16, 64), 1024) if durable else 128
    shared_memory = shutil.disk_usage("/dev/shm").free >> 20 if Path("/dev/shm").exists() else 0  # noqa: S108
    return {
        "shared_buffers": f"{min(max(mb // 8, 128), 4096) if durable else 128}MB",
        "effective_cache_size": f"{max(mb // 2, 256)}MB",
        "maintenance_work_mem": f"{maintenance}MB",
        "work_mem": "32MB",
        # A parallel HNSW build shares maintenance_work_mem; containers often give /dev/shm 64 MB.
        "dynamic_shared_memory_type": "posix" if shared_memory > 2 * maintenance else "mmap",
        "max_connections": "200",
        "max_worker_processes": "24",
        "max_wal_size": "4GB" if durable else "1GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",  # compiling takes longer than any query here
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
