// What Android Studio opens. Versions are in gradle/libs.versions.toml; tests compare these files with the
// build in tools/, which is the one that runs before each merge.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}

dependencyResolutionManagement {
    repositoriesMode.set(RepositoriesMode.FAIL_ON_PROJECT_REPOS)
    repositories {
        google()
        mavenCentral()
    }
}

rootProject.name = "edge-mrl-demo"
include(":core", ":android", ":app")
