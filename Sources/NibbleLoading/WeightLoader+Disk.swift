import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Weights that stay on the disk: mapped from the checkpoint where it holds them as they are used, else written once to the
/// offload folder and mapped from there.
extension WeightLoader {
    func isOnDisk(_ parameter: String) -> Bool { placement.storage(of: parameter) == .disk }

    /// `tensor` in a mapped file: the checkpoint's own where `tensor` is a view of it.
    func mapped(_ tensor: Tensor, name: String, file: Tensor, key: String, module: String) throws -> Tensor {
        if tensor.storage === file.storage, checkpoint.isView(file, of: key) {
            stream([key], of: checkpoint, module: module)
            return tensor
        }
        let weight = try offloaded(name, key: key, module: module, form: "\(tensor.dtype)") { .dense(tensor) }
        guard case .dense(let stored) = weight else {
            throw LoadError.unreadable(file: self.file(of: key), reason: "the offload folder holds \(key) in another form")
        }
        return stored
    }

    /// A weight that the checkpoint does not hold in this form, under a name of its own.
    func offloaded(
        _ name: String, key: String, module: String, form: String, _ make: () throws -> LinearWeight
    ) throws -> LinearWeight {
        let identity = "\(checkpoint.identity(of: key)) \(form)"
        let (weight, stored, names) = try offload.weight(name, identity: identity, make)
        stream(names, of: stored, module: module)
        return weight
    }
}

/// Blocks on the disk that run on another device than the CPU.
extension WeightLoader {
    /// Puts views of two buffers on the device in place of the mapped weights.
    func streamToDevice() throws {
        let stacks = architecture.stacks.compactMap { architecture.tree.module(at: $0.path) }
        let blocks = stacks.map { stack in
            stack.all(.block).filter { streams[$0.path] != nil && backend($0.path).device != .cpu }
        }
        guard let first = blocks.joined().first else { return }
        let device = backend(first.path)
        let layouts = blocks.joined().map(layout)
        let size = layouts.map(\.byteCount).max() ?? 0
        let pieces = try (0..<StreamBuffers.count).map { _ in try device.allocate(.uint8, [size]) }

        var parts = [StreamBuffers.BlockUpload]()
        for stack in blocks {
            let start = parts.count
            for (place, block) in stack.enumerated() {
                let index = parts.count
                let copies = replaceWeights(of: block, layouts[index], by: pieces[index % StreamBuffers.count])
                parts.append(
                    .init(
                        files: streams[block.path] ?? MappedWeights(), copies: copies, next: start + (place + 1) % stack.count))
            }
        }
        let buffers = StreamBuffers(parts, uploads: try device.makeUploads(slots: StreamBuffers.count))
        for (index, block) in blocks.joined().enumerated() {
            weights.streams[block.path] = StreamedWeights(buffers: buffers, index: index)
        }
    }

    private func layout(_ block: LocatedModule) -> StreamLayout {
        var layout = StreamLayout()
        for module in block.descendants {
            let experts = (weights.experts[module.path] ?? []).flatMap { $0.gateUp.layers + [$0.down] }
            for layer in [weights.linears[module.path]].compactMap({ $0 }) + experts {
                _ = layer.weight.mapTensors { tensor in
                    layout.add(tensor)
                    return tensor
                }
            }
        }
        return layout
    }

    /// Visits weights in the order of ``layout(_:)``.
    private func replaceWeights(
        of block: LocatedModule, _ layout: StreamLayout, by piece: Tensor
    ) -> [(source: Tensor, destination: Tensor)] {
        var copies: [(source: Tensor, destination: Tensor)] = []
        func replaced(_ layer: Linear) -> Linear {
            let weight = layer.weight.mapTensors { tensor in
                let view = Tensor(
                    storage: piece.storage, byteOffset: layout.places[copies.count].byteOffset, dtype: tensor.dtype,
                    shape: tensor.shape)
                copies.append((tensor, view))
                return view
            }
            return Linear(name: layer.name, weight: weight, bias: layer.bias, arithmetic: layer.arithmetic)
        }
        for module in block.descendants {
            if let layer = weights.linears[module.path] { weights.linears[module.path] = replaced(layer) }
            weights.experts[module.path] = weights.experts[module.path]?.map { expert in
                Expert(gateUp: LinearGroup(expert.gateUp.layers.map(replaced)), down: replaced(expert.down))
            }
        }
        return copies
    }
}

extension Checkpoint {
    /// Whether `tensor`, as ``tensor(_:)`` gave it, lies in the mapped file itself.
    func isView(_ tensor: Tensor, of name: String) -> Bool {
        guard let descriptor = descriptor(name) else { return false }
        // A copy begins at its own storage's start; nothing in a file does.
        return descriptor.isContiguous && descriptor.byteOffset > 0 && tensor.byteOffset == descriptor.byteOffset
    }
}

/// The mapped tensors of one block.
struct MappedWeights: WeightStream {
    private var parts: [(checkpoint: any Checkpoint, names: [String])] = []

    mutating func add(_ names: [String], of checkpoint: any Checkpoint) { parts.append((checkpoint, names)) }

    func acquire() throws {}

    func prefetch() {
        for part in parts { part.names.forEach(part.checkpoint.prefetch) }
    }

    func release() {
        for part in parts { part.names.forEach(part.checkpoint.dropPages) }
    }
}
