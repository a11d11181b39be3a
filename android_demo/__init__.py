"""The Android demo's build, without Gradle and without an SDK: `tools/`. Its Kotlin lies beside it."""
