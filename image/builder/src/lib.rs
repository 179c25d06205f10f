//! Reproducible, rootless image builder: initramfs, UKI, GPT disk image.
