public import NibbleCore

/// Where each module goes, and what that takes of each device.
public struct PlacementPlan: Sendable {
    /// Whose rules made a plan.
    public enum Planner: String, Sendable {
        /// transformers' plan.
        case reference
        /// Nibble's own, where the reference's would spill.
        case nibble
        /// The user's map.
        case explicit
    }

    /// The device of each module.
    public var deviceMap: DeviceMap
    /// Where blocks run that lie on the disk.
    package var streamDevice = Device.cpu
    /// Whose rules made the plan.
    public var planner: Planner
    /// In the order in which devices are filled.
    public var devices: [DeviceUse]
    /// Runs of modules, in the order in which tokens pass through them.
    public var ranges: [Range]
    /// Why loading must refuse this plan.
    public var refusal: DeviceMapError?
    /// What a user should know about the plan.
    public var warnings: [String] = []

    /// What a plan takes of one device.
    public struct DeviceUse: Sendable {
        /// The device.
        public var device: Device
        /// Bytes of weights as they are stored.
        public var weights = 0
        /// Bytes of the scales of quantized weights.
        public var scales = 0
        /// Bytes of keys and values.
        public var cache = 0
        /// Activations and logits, operations' own memory, and what blocks from the disk pass through.
        public var workspace = 0
        /// While weights are brought in, beside those already there: before there are caches and activations. A GPU's memory
        /// is one piece of which loading leaves gaps, so that there it counts all the time.
        public var loading = 0
        /// What the driver takes for itself; counted where the budget is free memory.
        public var context = 0
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
    public struct Range: Sendable {
        /// The first module of the range.
        public var first: String
        /// The last module of the range.
        public var last: String
        /// The device.
        public var device: Device
        /// Bytes of weights and scales.
        public var bytes: Int
        /// Why the modules lie there.
        public var reason: String
    }

    /// Whether the devices hold all of it. A map of the user's, or the reference's, is as it is.
    package var isRoomy: Bool {
        planner != .nibble || refusal == nil && devices.allSatisfy { $0.device != .disk || $0.weights + $0.scales == 0 }
    }

    /// Bytes of weights and scales on all devices.
    package var storedBytes: Int { devices.reduce(0) { $0 + $1.weights + $1.scales } }
}
