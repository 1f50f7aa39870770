// swift-tools-version: 6.2
import PackageDescription

// One helper gives every target the same settings; a target is named once, its tests follow by convention.

let swiftSettings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let cSettings: [CSetting] = [
    .define("NIBBLE_BUILD", to: "1")
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: swiftSettings)
}

func cModule(_ name: String) -> Target {
    .target(name: name, cSettings: cSettings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .testTarget(
        name: "\(name)Tests",
        dependencies: [.byName(name: name), "NibbleTestSupport"] + dependencies,
        swiftSettings: swiftSettings)
}

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "nibble",
    products: [
        .library(name: "Nibble", targets: ["Nibble"]),
        .library(name: "_NibbleConformance", targets: ["NibbleConformance", "NibbleCPU", "NibbleCore"]),
        .executable(name: "nibble", targets: ["NibbleCommand"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
    ],
    targets: [
        // Each line may import the lines above it, never below.
        cModule("CNibbleCPU"),
        module("NibbleCore"),
        module("NibbleCPU", ["NibbleCore", "CNibbleCPU"]),
        module("NibbleCheckpoint", ["NibbleCore"]),
        module("NibbleTokenizers", ["NibbleCore"]),
        module("NibbleQuantization", ["NibbleCore"]),
        module("NibbleModels", ["NibbleCore", "NibbleQuantization"]),
        module("NibbleDeviceMap", ["NibbleCore", "NibbleQuantization", "NibbleModels"]),
        module("NibbleLoading", ["NibbleCore", "NibbleCheckpoint", "NibbleQuantization", "NibbleModels", "NibbleDeviceMap"]),
        module("NibbleGeneration", ["NibbleCore", "NibbleModels", "NibbleTokenizers"]),
        module("NibbleConformance", ["NibbleCore", "NibbleCPU", "NibbleQuantization"]),
        module(
            "Nibble",
            [
                "NibbleCore", "NibbleCPU", "NibbleCheckpoint", "NibbleTokenizers", "NibbleQuantization", "NibbleModels",
                "NibbleDeviceMap", "NibbleLoading", "NibbleGeneration",
            ]),
        .executableTarget(
            name: "NibbleCommand", dependencies: ["Nibble", "NibbleConformance", argumentParser], swiftSettings: swiftSettings),

        .target(name: "NibbleTestSupport", path: "Tests/NibbleTestSupport", swiftSettings: swiftSettings),
        tests("NibbleCore"),
        tests("NibbleCPU", ["NibbleConformance"]),
        tests("NibbleCheckpoint"),
        tests("NibbleTokenizers"),
        tests("NibbleQuantization", ["NibbleCheckpoint", "NibbleCPU", "NibbleConformance"]),
        tests("NibbleModels"),
        tests("NibbleDeviceMap", ["NibbleCore", "NibbleModels", "NibbleQuantization"]),
        tests("NibbleGeneration", ["NibbleCheckpoint"]),
        tests("Nibble", ["NibbleCPU", "NibbleCheckpoint", "NibbleGeneration", "NibbleModels", "NibbleTokenizers"]),
        tests("NibbleCommand", ["NibbleCheckpoint", "NibbleCore"]),
    ],
    cLanguageStandard: .c2x
)
