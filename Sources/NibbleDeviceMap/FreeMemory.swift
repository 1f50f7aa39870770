import NibbleCore

/// What a device has left while segments are placed on it.
struct FreeMemory {
    /// Bytes for all that is held while the model runs.
    private var running: Int
    /// Bytes for weights and for loading them.
    private var loading: Int
    /// Whether memory that loading used is not available to what runs later: a GPU's memory is one piece, and loading leaves
    /// gaps in it.
    private let loadingStays: Bool
    /// What loading takes beside the weights, for the largest weight so far.
    private var loadingOverhead = 0

    static let unlimited = FreeMemory(running: .max, loading: .max)

    init(running: Int, loading: Int, loadingStays: Bool = false) {
        self.running = running
        self.loading = loading
        self.loadingStays = loadingStays
    }

    /// - Returns: `false` if it does not fit; then nothing is taken.
    mutating func take(weights: Int = 0, running other: Int = 0, loadingOverhead overhead: Int = 0) -> Bool {
        let growth = max(overhead - loadingOverhead, 0)
        let (resident, loaded) = (weights + other + (loadingStays ? growth : 0), weights + growth)
        guard resident <= running, loaded <= loading else { return resident == 0 && loaded == 0 }
        if running != .max { running -= resident }
        if loading != .max { loading -= loaded }
        loadingOverhead += growth
        return true
    }
}

/// Devices while segments are placed on them.
struct DeviceFilling {
    /// A device that is missing has no memory.
    private var free: [Device: FreeMemory]
    /// By module (or parameter) path.
    private(set) var devices: [String: Device] = [:]

    init(free: [Device: FreeMemory]) { self.free = free }

    /// Sets memory aside for what runs.
    mutating func take(running bytes: Int, on device: Device) -> Bool { free[device]?.take(running: bytes) ?? true }

    /// - Parameter extra: what runs on the device because of this segment, beside its cache.
    /// - Returns: `false` if the segment does not fit.
    mutating func place(_ segment: ModelSegment, on device: Device, withCache: Bool = true, extra: Int = 0) -> Bool {
        let weights = segment.bytes.total + segment.overhead.padding
        var overhead = segment.overhead.deviceLoading
        if device.loadingDevice != device {
            guard free[device.loadingDevice]?.take(loadingOverhead: overhead) ?? true else { return false }
            overhead = 0
        }
        let running = (withCache ? segment.cache : 0) + extra
        guard free[device]?.take(weights: weights, running: running, loadingOverhead: overhead) ?? (weights == 0) else {
            return false
        }
        for path in segment.paths { devices[path] = device }
        return true
    }
}
