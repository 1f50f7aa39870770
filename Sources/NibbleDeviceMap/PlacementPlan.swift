package import NibbleCore

/// Where each module goes, and what that takes of each device.
package struct PlacementPlan: Sendable {
    package enum Planner: String, Sendable {
        /// transformers' plan.
        case reference
        /// Nibble's own, where the reference's would spill.
        case nibble
        /// The user's map.
        case explicit
    }

    package var deviceMap: DeviceMap
    /// Where blocks run that lie on the disk.
    package var streamDevice = Device.cpu
    package var planner: Planner
    /// In the order in which devices are filled.
    package var devices: [DeviceMemory]
    /// Runs of modules, in the order in which tokens pass through them.
    package var ranges: [Range]
    /// Why loading must refuse this plan.
    package var refusal: DeviceMapError?
    package var warnings: [String] = []

    /// What a plan takes of one device.
    package struct DeviceMemory: Sendable {
        package var device: Device
        package var weights = 0
        package var scales = 0
        package var cache = 0
        /// Activations and logits, operations' own memory, and what blocks from the disk pass through.
        package var workspace = 0
        /// While weights are brought in, beside those already there: before there are caches and activations. A GPU's memory
        /// is one piece of which loading leaves gaps, so that there it counts all the time.
        package var loading = 0
        /// What the driver takes for itself; counted where the budget is free memory.
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
    package struct Range: Sendable {
        package var first: String
        package var last: String
        package var device: Device
        package var bytes: Int
        package var reason: String
    }

    /// Whether the devices hold all of it. A map of the user's, or the reference's, is as it is.
    package var fitsInMemory: Bool {
        planner != .nibble || refusal == nil && devices.allSatisfy { $0.device != .disk || $0.weights + $0.scales == 0 }
    }

    /// Bytes of weights and scales on all devices.
    package var storedBytes: Int { devices.reduce(0) { $0 + $1.weights + $1.scales } }
}
