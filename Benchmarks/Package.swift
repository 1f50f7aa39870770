// swift-tools-version: 6.2
import PackageDescription

func benchmark(_ name: String, _ product: String) -> Target {
    .executableTarget(
        name: name, dependencies: [.product(name: product, package: "nibble")],
        swiftSettings: [.enableUpcomingFeature("ExistentialAny"), .enableUpcomingFeature("InternalImportsByDefault")])
}

let package = Package(
    name: "nibble-benchmarks",
    dependencies: [.package(name: "nibble", path: "..")],
    targets: [
        benchmark("LinearBenchmark", "_NibbleConformance"),
        benchmark("TokenizerBenchmark", "Nibble"),
    ]
)
