package import NibbleCore

/// Where each module goes, and what that takes of each device.
package struct PlacementPlan: Sendable {
    package enum Planner: String, Sendable {
        /// transformers' plan.
        case reference
        /// Nibble's own, where the reference's would not keep everything on the GPUs.
        case nibble
        /// The user's map.
        case explicit
    }

    package var deviceMap: DeviceMap
    /// Where blocks from the disk run.
    package var streamDevice = Device.cpu
    package var planner: Planner
    /// In the order in which devices are filled.
    package var devices: [DeviceMemory]
    /// Runs of modules, in the order in which tokens pass through them.
    package var ranges: [ModuleRange]
    /// Why loading must refuse this plan.
    package var refusal: DeviceMapError?
    package var warnings: [String] = []
    /// Options that would keep more of the model where it is fast, most effective first.
    package var hints: [String] = []
    /// How much of the model is where it is fast.
    package var residency = Residency.complete

    /// How much of a model is where it is fast, from worst to best.
    package enum Residency: Int, Sendable, Comparable {
        /// Not even the disk makes it fit.
        case refused
        /// Part of the model is read from the disk for each use.
        case partlyOnDisk
        /// A tied head runs on the CPU though there are GPUs: each token reads the token table from main memory.
        case headOffGPUs
        case complete

        package static func < (a: Residency, b: Residency) -> Bool { a.rawValue < b.rawValue }
    }

    /// What a plan takes of one device, in bytes.
    package struct DeviceMemory: Sendable {
        package var device: Device
        package var weights = 0
        package var scales = 0
        package var cache = 0
        /// Activations and logits, the operations' own memory, and buffers for blocks from the disk.
        package var workspace = 0
        /// Taken while weights are loaded, beside the weights already there.
        ///
        /// There are no caches and activations yet. On a GPU, whose memory is one piece, loading leaves gaps, so there these
        /// bytes count all the time.
        package var loading = 0
        /// What the driver takes for itself. Counted where the budget is measured free memory.
        package var context = 0
        /// `nil`: no limit was given.
        package var budget: Int?

        /// The most that is held at any time.
        package var total: Int {
            let running = cache + workspace
            return weights + scales + (device.isGPU ? running + loading : max(running, loading)) + context
        }

        package init(_ device: Device, budget: Int? = nil) {
            self.device = device
            self.budget = budget
        }
    }

    /// Neighbouring modules on one device.
    package struct ModuleRange: Sendable {
        package var first: String
        package var last: String
        package var device: Device
        /// Weights, scales and caches.
        package var bytes: Int
        package var reason: String
    }

    /// Bytes of weights and scales on all devices.
    package var storedBytes: Int { devices.reduce(0) { $0 + $1.weights + $1.scales } }
}
