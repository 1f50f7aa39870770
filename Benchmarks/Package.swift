// swift-tools-version: 6.2
import PackageDescription

func benchmark(_ name: String, _ product: String, _ targets: [Target.Dependency] = []) -> Target {
    .executableTarget(
        name: name, dependencies: [.product(name: product, package: "nibble")] + targets,
        swiftSettings: [.enableUpcomingFeature("ExistentialAny"), .enableUpcomingFeature("InternalImportsByDefault")])
}

let package = Package(
    name: "nibble-benchmarks",
    dependencies: [.package(name: "nibble", path: "..")],
    targets: [
        .target(name: "CPeak"),
        benchmark("LinearBenchmark", "_NibbleConformance", ["CPeak"]),
        benchmark("TokenizerBenchmark", "Nibble"),
    ]
)
