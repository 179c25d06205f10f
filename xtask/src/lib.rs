//! cargo xtask: every command of the project.
