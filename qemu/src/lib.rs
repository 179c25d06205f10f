//! VM cluster harness: boot, virtual switch, drives, faults.
