// swift-tools-version: 6.2
import PackageDescription

let nibble: Target.Dependency = .product(name: "Nibble", package: "nibble")

let package = Package(
    name: "nibble-examples",
    dependencies: [
        // In a package of your own: .package(url: "ADDRESS-OF-THE-REPOSITORY", branch: "main")
        .package(name: "nibble", path: ".."),
        // For the HTTP service alone.
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
    ],
    targets: [
        .executableTarget(name: "generate", dependencies: [nibble]),
        .executableTarget(name: "chat", dependencies: [nibble]),
        .executableTarget(name: "translate", dependencies: [nibble]),
        .executableTarget(
            name: "service", dependencies: [nibble, .product(name: "Hummingbird", package: "hummingbird")]),
    ]
)
