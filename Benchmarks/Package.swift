// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "nibble-benchmarks",
    dependencies: [.package(name: "nibble", path: "..")],
    targets: [
        .executableTarget(
            name: "LinearBenchmark", dependencies: [.product(name: "_NibbleConformance", package: "nibble")],
            swiftSettings: [.enableUpcomingFeature("ExistentialAny"), .enableUpcomingFeature("InternalImportsByDefault")])
    ]
)
