import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

// The bundle of the assets: -Pbundle=FOLDER. Without one the app finds notes by their words.
val bundle = providers.gradleProperty("bundle")

// sqlite-jdbc carries its libraries for Android as resources of Java; an APK has them in lib/.
val sqlite: Configuration by configurations.creating { isTransitive = false }
val sqliteLibraries = tasks.register<Sync>("sqliteLibraries") {
    from({ zipTree(sqlite.singleFile) }) {
        include("org/sqlite/native/Linux-Android/**/libsqlitejdbc.so")
        eachFile {
            val folders = mapOf("aarch64" to "arm64-v8a", "x86_64" to "x86_64")
            val abi = folders[file.parentFile.name]
            if (abi == null) exclude() else path = "$abi/$name"
        }
        includeEmptyDirs = false
    }
    into(layout.buildDirectory.dir("sqlite"))
}
val bundleAssets = tasks.register<Sync>("bundleAssets") {
    from(bundle.map { files(it) }.orElse(files())) { into("bundle") }
    into(layout.buildDirectory.dir("assets"))
}

android {
    namespace = "org.edgemrl.demo"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.targetSdk.get().toInt()
        versionCode = libs.versions.appVersionCode.get().toInt()
        versionName = libs.versions.appVersion.get()
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }

    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles("rules.pro")
        }
    }

    sourceSets["main"].jniLibs.srcDir(sqliteLibraries)
    sourceSets["main"].assets.srcDir(bundleAssets)

    packaging {
        jniLibs.useLegacyPackaging = false
        resources.excludes += "org/sqlite/native/**"
    }

    compileOptions {
        sourceCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
        targetCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
    }
}

kotlin {
    compilerOptions {
        jvmTarget.set(JvmTarget.fromTarget(libs.versions.jvmTarget.get()))
        allWarningsAsErrors.set(true)
    }
}

dependencies {
    implementation(project(":android"))
    sqlite(libs.sqlite.jdbc)
    testImplementation(libs.junit.console)
}
