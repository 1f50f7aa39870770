package import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Weights that stay on the disk. They are mapped from the checkpoint where it holds them in the form in which they are used.
/// Otherwise they are written once to the offload folder, and mapped from there.
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

    /// A weight in a form that the checkpoint does not hold.
    func offloaded(
        _ name: String, key: String, module: String, form: String, _ make: () throws -> LinearWeight
    ) throws -> LinearWeight {
        let identity = "\(checkpoint.identity(of: key)) \(form)"
        let (weight, stored, names) = try offload.weight(name, identity: identity, make)
        stream(names, of: stored, module: module)
        return weight
    }
}

/// Blocks on the disk that run on a GPU.
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
        let buffers = try (0..<StreamBuffers.count).map { _ in try device.allocate(.uint8, [size]) }

        var uploads = [StreamBuffers.BlockUpload]()
        for stack in blocks {
            let start = uploads.count
            for (position, block) in stack.enumerated() {
                let index = uploads.count
                let copies = replaceWeights(of: block, layouts[index], by: buffers[index % StreamBuffers.count])
                uploads.append(
                    .init(
                        files: streams[block.path] ?? MappedWeights(), copies: copies, next: start + (position + 1) % stack.count)
                )
            }
        }
        let shared = StreamBuffers(uploads, device: try device.makeUploads(slots: StreamBuffers.count))
        for (index, block) in blocks.joined().enumerated() {
            weights.streams[block.path] = StreamedWeights(buffers: shared, index: index)
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
        of block: LocatedModule, _ layout: StreamLayout, by buffer: Tensor
    ) -> [(source: Tensor, destination: Tensor)] {
        var copies: [(source: Tensor, destination: Tensor)] = []
        func replaced(_ layer: Linear) -> Linear {
            let weight = layer.weight.mapTensors { tensor in
                let view = Tensor(
                    storage: buffer.storage, byteOffset: layout.offsets[copies.count], dtype: tensor.dtype,
                    shape: tensor.shape)
                copies.append((tensor, view))
                return view
            }
            return Linear(
                name: layer.name, weight: weight, bias: layer.bias, arithmetic: layer.arithmetic, lowRankPlace: layer.lowRankPlace
            )
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
        // A copy begins at the start of its storage. In a file, the header comes first.
        return descriptor.isContiguous && descriptor.byteOffset > 0 && tensor.byteOffset == descriptor.byteOffset
    }
}

/// The mapped tensors that one block reads.
package struct MappedWeights: WeightStream {
    package init() {}

    private var tensors: [(checkpoint: any Checkpoint, names: [String])] = []

    package mutating func add(_ names: [String], of checkpoint: any Checkpoint) { tensors.append((checkpoint, names)) }

    package func acquire() throws {}

    package func prefetch() {
        for file in tensors { file.names.forEach(file.checkpoint.prefetch) }
    }

    package func release() {
        for file in tensors { file.names.forEach(file.checkpoint.dropPages) }
    }
}
