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
// Without its trait, the server's packages are not even fetched: every target that needs them says so through this function.
func server(_ name: String, _ package: String) -> Target.Dependency {
    .product(name: name, package: package, condition: .when(traits: ["Server"]))
}
// The connections of `nibble serve`, and the servers in the tests.
let nio = ["NIOCore", "NIOPosix", "NIOHTTP1"].map { server($0, "swift-nio") }
// HTTP and the life of `nibble serve`.
let hummingbird = [
    server("HTTPTypes", "swift-http-types"), server("Hummingbird", "hummingbird"), server("Logging", "swift-log"),
    server("ServiceLifecycle", "swift-service-lifecycle"), server("UnixSignals", "swift-service-lifecycle"),
]

// `nibble --version` names the commit. A target of its own, so that a new commit compiles one small file.
let commit = Context.gitInformation.map { $0.currentCommit.prefix(12) + ($0.hasUncommittedChanges ? "+" : "") } ?? ""

let package = Package(
    name: "nibble",
    products: [
        .library(name: "Nibble", targets: ["Nibble"]),
        .executable(name: "nibble", targets: ["NibbleCommand"]),
        // For `Benchmarks/`.
        .library(name: "_NibbleConformance", targets: ["NibbleConformance"]),
    ],
    traits: [
        .default(enabledTraits: ["Server", "SelfTest"]),
        .trait(name: "Server", description: "nibble serve. Without it, neither swift-nio nor Hummingbird is fetched."),
        .trait(name: "SelfTest", description: "nibble doctor --selftest, with the cases of every operation."),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // Each line may import the lines above it, never below.
        .target(name: "CNibbleVersion", cSettings: [.define("NIBBLE_COMMIT", to: commit)]),
        cModule(
            "CNibbleCPU",
            exclude: ["vectors"] + ["attention", "elementwise", "linear", "quantize", "recurrence"].map { "\($0)/templates" }),
        cModule("CNibbleCUDA", exclude: ["kernels"]),
        cModule("CNibbleHub"),
        module("NibbleCore"),
        module("NibbleCPU", ["NibbleCore", "CNibbleCPU"]),
        module("NibbleCUDA", ["NibbleCore", "CNibbleCUDA"]),
        module("NibbleCheckpoint", ["NibbleCore", "CNibbleCPU"]),
        module("NibbleHub", ["NibbleCore", "CNibbleHub"]),
        module("NibbleTemplates", ["NibbleCore"]),
        module("NibbleTokenizers", ["NibbleCore", "NibbleTemplates"]),
        module("NibbleGrammar", ["NibbleCore"]),
        module("NibbleQuantization", ["NibbleCore"]),
        module("NibbleModels", ["NibbleCore", "NibbleQuantization"]),
        module("NibbleDeviceMap", ["NibbleCore", "NibbleQuantization", "NibbleModels"]),
        module(
            "NibbleLoading",
            ["NibbleCore", "NibbleCheckpoint", "NibbleGrammar", "NibbleQuantization", "NibbleModels", "NibbleDeviceMap"]),
        module("NibbleGeneration", ["NibbleCore", "NibbleGrammar", "NibbleModels"]),
        module("NibbleServing", ["NibbleCore", "NibbleModels"]),
        module("NibbleConformance", ["NibbleCore", "NibbleCPU", "NibbleQuantization"]),
        module(
            "Nibble",
            [
                "NibbleCore", "NibbleCPU", "NibbleCUDA", "NibbleCheckpoint", "NibbleHub", "NibbleTemplates",
                "NibbleTokenizers", "NibbleGrammar", "NibbleQuantization", "NibbleModels", "NibbleDeviceMap", "NibbleLoading",
                "NibbleGeneration", "NibbleServing",
            ]),
        cModule("CNibblePage", exclude: ["api", "page"]),
        module(
            "NibbleServer",
            [
                "CNibblePage", "NibbleCore", "NibbleTemplates", "NibbleTokenizers", "NibbleGrammar", "NibbleModels",
                "NibbleGeneration",
                "NibbleServing", "Nibble",
            ]
                + hummingbird + nio),
        .executableTarget(
            name: "NibbleCommand",
            dependencies: [
                "CNibbleVersion", "NibbleCore", "NibbleCheckpoint", "NibbleHub", "NibbleTokenizers", "NibbleGrammar",
                "NibbleGeneration",
                "Nibble", argumentParser,
                .target(name: "NibbleConformance", condition: .when(traits: ["SelfTest"])),
                .target(name: "NibbleServer", condition: .when(traits: ["Server"])),
            ],
            swiftSettings: swiftSettings),

        module(
            "NibbleTestSupport", ["NibbleCore", "NibbleCPU", "NibbleCheckpoint", "NibbleQuantization", "NibbleConformance"],
            path: "Tests/NibbleTestSupport"),
        tests("NibbleCore"),
        tests("NibbleCPU", ["NibbleCore", "NibbleConformance", "NibbleCommand"]),
        tests("NibbleCUDA", ["NibbleCore", "NibbleQuantization", "NibbleConformance"]),
        tests("NibbleCheckpoint", ["NibbleCore"]),
        tests("NibbleHub", ["NibbleCore", "NibbleCheckpoint", "Nibble", "NibbleCommand"] + nio),
        tests("NibbleTemplates", ["NibbleCore"]),
        tests("NibbleTokenizers", ["NibbleCore", "NibbleTemplates"]),
        tests("NibbleGrammar", ["NibbleCore"]),
        tests("NibbleQuantization", ["NibbleCore", "NibbleCPU"]),
        tests("NibbleModels", ["NibbleCore", "NibbleCPU"]),
        tests("NibbleDeviceMap", ["NibbleCore", "NibbleModels", "NibbleQuantization"]),
        tests(
            "NibbleLoading",
            ["NibbleCore", "NibbleCPU", "NibbleCheckpoint", "NibbleDeviceMap", "NibbleModels", "NibbleQuantization"]),
        tests("NibbleGeneration", ["NibbleCore", "NibbleCheckpoint", "NibbleGrammar", "NibbleModels"]),
        tests("NibbleServing", ["NibbleCore", "NibbleModels"]),
        tests(
            "Nibble",
            [
                "NibbleCore", "NibbleCPU", "NibbleCheckpoint", "NibbleHub", "NibbleTokenizers", "NibbleQuantization",
                "NibbleModels", "NibbleLoading", "NibbleGrammar", "NibbleGeneration", "NibbleServing",
            ]),
        tests(
            "NibbleServer",
            [
                "NibbleCore", "NibbleGrammar", "NibbleModels", "NibbleTokenizers", "NibbleHub", "Nibble", "NibbleCommand",
            ] + hummingbird + nio),
        tests("NibbleCommand", ["NibbleCore", "NibbleCheckpoint"]),
        // Sees what a user's program sees: no `package` declarations.
        .testTarget(name: "FacadeTests", dependencies: ["Nibble"], packageAccess: false, swiftSettings: swiftSettings),
    ],
    cLanguageStandard: .c2x
)
