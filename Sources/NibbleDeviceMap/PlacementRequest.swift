package import NibbleCore

/// What is asked of placement.
package struct PlacementRequest: Sendable {
    package var deviceMap: DeviceMapRequest = .auto
    /// Bytes by device. A device that is not named does not exist, except the disk and, for embeddings and a tied head, the
    /// CPU.
    package var limits: [Device: Int] = [:]
    /// Whether the user named the limits. They then bound what Nibble allocates. Measured ones also hold the driver's share.
    package var limitsAreGiven = true
    /// Take transformers' own plan, whatever it does.
    package var followsReference = false
    /// What a device's operations take beside activations.
    package var operationBytes = ModelMemory.roughOperationBytes

    package init() {}
}
