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

func cModule(_ name: String, exclude: [String] = []) -> Target {
    .target(name: name, exclude: exclude, cSettings: cSettings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .testTarget(
        name: "\(name)Tests",
        dependencies: [.byName(name: name), "NibbleTestSupport"] + dependencies,
        swiftSettings: swiftSettings)
}

let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let httpClient: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
// Errors of the network, and the server in the tests.
let nio: [Target.Dependency] = ["NIOCore", "NIOPosix", "NIOHTTP1"].map { .product(name: $0, package: "swift-nio") }

let package = Package(
    name: "nibble",
    products: [
        .library(name: "Nibble", targets: ["Nibble"]),
        .library(name: "_NibbleConformance", targets: ["NibbleConformance"]),
        .executable(name: "nibble", targets: ["NibbleCommand"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    ],
    targets: [
        // Each line may import the lines above it, never below.
        cModule("CNibbleCPU"),
        cModule("CNibbleCUDA", exclude: ["kernels"]),
        module("NibbleCore"),
        module("NibbleCPU", ["NibbleCore", "CNibbleCPU"]),
        module("NibbleCUDA", ["NibbleCore", "CNibbleCUDA"]),
        module("NibbleCheckpoint", ["NibbleCore"]),
        module("NibbleHub", ["NibbleCore", httpClient, crypto] + nio.prefix(2)),
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
                "NibbleCore", "NibbleCPU", "NibbleCUDA", "NibbleCheckpoint", "NibbleHub", "NibbleTokenizers",
                "NibbleQuantization", "NibbleModels", "NibbleDeviceMap", "NibbleLoading", "NibbleGeneration",
            ]),
        .executableTarget(
            name: "NibbleCommand", dependencies: ["Nibble", "NibbleConformance", argumentParser], swiftSettings: swiftSettings),

        .target(
            name: "NibbleTestSupport",
            dependencies: ["NibbleCore", "NibbleCheckpoint", "NibbleQuantization", "NibbleConformance"],
            path: "Tests/NibbleTestSupport", swiftSettings: swiftSettings),
        tests("NibbleCore"),
        tests("NibbleCPU", ["NibbleCommand", "NibbleConformance"]),
        tests("NibbleCUDA", ["NibbleConformance", "NibbleQuantization"]),
        tests("NibbleCheckpoint"),
        tests("NibbleHub", ["Nibble", "NibbleCheckpoint", "NibbleCommand", "NibbleCore"] + nio),
        tests("NibbleTokenizers"),
        tests("NibbleQuantization", ["NibbleCheckpoint", "NibbleCPU", "NibbleConformance"]),
        tests("NibbleModels"),
        tests("NibbleDeviceMap", ["NibbleCore", "NibbleModels", "NibbleQuantization"]),
        tests("NibbleGeneration", ["NibbleCheckpoint"]),
        tests("Nibble", ["NibbleCPU", "NibbleCheckpoint", "NibbleGeneration", "NibbleModels", "NibbleTokenizers"]),
        tests("NibbleCommand", ["NibbleCheckpoint", "NibbleCore"]),
        // Sees what a user's program sees: no `package` declarations.
        .testTarget(name: "FacadeTests", dependencies: ["Nibble"], packageAccess: false, swiftSettings: swiftSettings),
    ],
    cLanguageStandard: .c2x
)
