public import NibbleCore

/// Where each module goes, and what that takes of each device.
public struct PlacementPlan: Sendable {
    /// Whose rules made a plan.
    public enum Planner: String, Sendable {
        /// transformers' plan.
        case reference
        /// Nibble's own, where the reference's would not keep everything on the GPUs.
        case nibble
        /// The user's map.
        case explicit
    }

    /// The device of each module.
    public var deviceMap: DeviceMap
    /// Where blocks from the disk run.
    package var streamDevice = Device.cpu
    /// Whose rules made the plan.
    public var planner: Planner
    /// In the order in which devices are filled.
    public var devices: [DeviceMemory]
    /// Runs of modules, in the order in which tokens pass through them.
    public var ranges: [ModuleRange]
    /// Why loading must refuse this plan.
    public var refusal: DeviceMapError?
    /// What a user should know about the plan.
    public var warnings: [String] = []
    /// Options that would keep more of the model where it is fast, most effective first.
    public var hints: [String] = []
    /// How much of the model is where it is fast.
    package var residency = Residency.complete
    /// Bytes of the caches that are states of recurrent layers, on all devices.
    package var stateBytes = 0

    /// How much of a model is where it is fast, from worst to best.
    package enum Residency: Int, Sendable, Comparable {
        /// Not even the disk makes it fit.
        case refused
        /// Part of the model is read from the disk for each use.
        case partlyOnDisk
        /// A tied head runs on the CPU though there are GPUs: each token reads the token table from main memory.
        case headOffGPUs
        /// Everything is on the GPUs, or on the CPU where there are none.
        case complete

        /// From worst to best.
        package static func < (a: Residency, b: Residency) -> Bool { a.rawValue < b.rawValue }
    }

    /// What a plan takes of one device, in bytes.
    public struct DeviceMemory: Sendable {
        /// The device.
        public var device: Device
        /// Bytes of weights as they are stored.
        public var weights = 0
        /// Bytes of the scales of quantized weights.
        public var scales = 0
        /// Bytes of keys and values.
        public var cache = 0
        /// Activations and logits, the operations' own memory, and buffers for blocks from the disk.
        public var workspace = 0
        /// Taken while weights are loaded, beside the weights already there.
        ///
        /// There are no caches and activations yet. On a GPU, whose memory is one piece, loading leaves gaps, so there these
        /// bytes count all the time.
        package var loading = 0
        /// What the driver takes for itself. Counted where the budget is measured free memory.
        package var context = 0
        /// `nil`: no limit was given.
        public var budget: Int?

        /// The most that is held at any time.
        public var total: Int {
            let running = cache + workspace
            return weights + scales + (device.isGPU ? running + loading : max(running, loading)) + context
        }

        package init(_ device: Device, budget: Int? = nil) {
            self.device = device
            self.budget = budget
        }
    }

    /// Neighbouring modules on one device.
    public struct ModuleRange: Sendable {
        /// The first module of the range.
        public var first: String
        /// The last module of the range.
        public var last: String
        /// The device.
        public var device: Device
        /// Weights, scales and caches.
        public var bytes: Int
        /// Why the modules lie there.
        public var reason: String
    }

    /// Bytes of weights and scales on all devices.
    package var storedBytes: Int { devices.reduce(0) { $0 + $1.weights + $1.scales } }
}
