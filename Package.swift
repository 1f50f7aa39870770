// swift-tools-version: 6.2
import PackageDescription

// One helper gives every Swift target its settings. A target declares the modules that its files import, and no others.

let swiftSettings: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = [], path: String? = nil) -> Target {
    .target(name: name, dependencies: dependencies, path: path, swiftSettings: swiftSettings)
}

func cModule(_ name: String, exclude: [String] = []) -> Target {
    .target(name: name, exclude: exclude)
}

/// The tests of the target `name`. Those that run the command line depend on its executable.
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
        .executable(name: "nibble", targets: ["NibbleCommand"]),
        // For `Benchmarks/`.
        .library(name: "_NibbleConformance", targets: ["NibbleConformance"]),
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
        module("NibbleTokenizers"),
        module("NibbleQuantization", ["NibbleCore"]),
        module("NibbleModels", ["NibbleCore", "NibbleQuantization"]),
        module("NibbleDeviceMap", ["NibbleCore", "NibbleQuantization", "NibbleModels"]),
        module("NibbleLoading", ["NibbleCore", "NibbleCheckpoint", "NibbleQuantization", "NibbleModels", "NibbleDeviceMap"]),
        module("NibbleGeneration", ["NibbleCore", "NibbleModels"]),
        module("NibbleConformance", ["NibbleCore", "NibbleCPU", "NibbleQuantization"]),
        module(
            "Nibble",
            [
                "NibbleCore", "NibbleCPU", "NibbleCUDA", "NibbleCheckpoint", "NibbleHub", "NibbleTokenizers",
                "NibbleQuantization", "NibbleModels", "NibbleDeviceMap", "NibbleLoading", "NibbleGeneration",
            ]),
        .executableTarget(
            name: "NibbleCommand",
            dependencies: ["NibbleCore", "NibbleCheckpoint", "NibbleTokenizers", "NibbleConformance", "Nibble", argumentParser],
            swiftSettings: swiftSettings),

        module(
            "NibbleTestSupport", ["NibbleCore", "NibbleCheckpoint", "NibbleQuantization", "NibbleConformance"],
            path: "Tests/NibbleTestSupport"),
        tests("NibbleCore"),
        tests("NibbleCPU", ["NibbleCore", "NibbleCommand"]),
        tests("NibbleCUDA", ["NibbleCore", "NibbleQuantization", "NibbleConformance"]),
        tests("NibbleCheckpoint", ["NibbleCore"]),
        tests("NibbleHub", ["NibbleCore", "NibbleCheckpoint", "Nibble", "NibbleCommand"] + nio),
        tests("NibbleTokenizers"),
        tests("NibbleQuantization", ["NibbleCore", "NibbleCPU"]),
        tests("NibbleModels", ["NibbleCore"]),
        tests("NibbleDeviceMap", ["NibbleCore", "NibbleModels", "NibbleQuantization"]),
        tests("NibbleGeneration", ["NibbleCore", "NibbleCheckpoint", "NibbleModels"]),
        tests("Nibble", ["NibbleCore", "NibbleCPU", "NibbleCheckpoint", "NibbleTokenizers", "NibbleModels", "NibbleGeneration"]),
        tests("NibbleCommand", ["NibbleCore", "NibbleCheckpoint"]),
        // Sees what a user's program sees: no `package` declarations.
        .testTarget(name: "FacadeTests", dependencies: ["Nibble"], packageAccess: false, swiftSettings: swiftSettings),
    ],
    cLanguageStandard: .c2x
)
