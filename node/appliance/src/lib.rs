//! PID 1: mounts, modules, network, supervision of the node role.
