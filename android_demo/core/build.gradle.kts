import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget.set(JvmTarget.fromTarget(libs.versions.jvmTarget.get()))
        freeCompilerArgs.addAll("-Xjdk-release=8", "-progressive")
        allWarningsAsErrors.set(true)
    }
}

java {
    sourceCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
    targetCompatibility = JavaVersion.toVersion(libs.versions.jvmTarget.get())
}

dependencies {
    // Each app brings its own: the jar of a desktop, or the archive of Android.
    compileOnly(libs.onnxruntime.jvm)
    implementation(libs.sqlite.jdbc)
    testImplementation(libs.onnxruntime.jvm)
    testImplementation(libs.junit.console)
}
