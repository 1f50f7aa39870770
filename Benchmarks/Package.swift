// swift-tools-version: 6.2
import PackageDescription

func benchmark(_ name: String, _ products: [String], _ more: [Target.Dependency] = []) -> Target {
    .executableTarget(
        name: name, dependencies: products.map { .product(name: $0, package: "nibble") } + more,
        swiftSettings: [.enableUpcomingFeature("ExistentialAny"), .enableUpcomingFeature("InternalImportsByDefault")])
}

let package = Package(
    name: "nibble-benchmarks",
    dependencies: [.package(name: "nibble", path: "..")],
    targets: [
        .target(name: "CPeak"),
        benchmark("LinearBenchmark", ["_NibbleConformance"], ["CPeak"]),
        benchmark("TokenizerBenchmark", ["Nibble"]),
        // A client of a running server; it needs nothing of Nibble's.
        benchmark("ServerLoad", []),
        .target(name: "CAllocationCount"),
        benchmark("AllocationBenchmark", ["Nibble"], ["CAllocationCount"]),
    ]
)
