import NibbleCheckpoint
import NibbleCore
import NibbleModels

/// Experts that keep the MXFP4 form of their checkpoint, because no other form was asked for.
extension WeightLoader {
    /// The checkpoint, if it holds the parameter `key` in MXFP4 and the model computes with that.
    func keptMXFP4(_ key: String) -> DequantizedCheckpoint? {
        guard plan.keptExperts != nil, let stored = checkpoint as? DequantizedCheckpoint, stored.isMXFP4(key) else { return nil }
        return stored
    }

    /// One expert's matrix as 4-bit codes with the exponents of their scales, the gate's rows before those of up.
    func microscaled(
        _ stored: DequantizedCheckpoint, _ key: String, _ index: Int, _ projection: String, _ module: LocatedModule,
        on backend: any Backend
    ) throws -> LinearWeight {
        let format = FourBitFormat.mxfp4
        func make() throws -> LinearWeight {
            let rows = try stored.mxfp4(key, matrix: index, separatesAlternateRows: projection == "gate_up_proj")
            return .fourBit(
                FourBitWeight(
                    format: format, outFeatures: rows.outFeatures, inFeatures: rows.inFeatures, codes: rows.codes,
                    scales: .exponents(rows.exponents), sourceDType: dtype))
        }
        let name = "\(module.path).\(index).\(projection)"
        guard !isOnDisk(module.path(of: "down_proj")) else {
            return try offloaded(name, key: key, module: module.path, form: "mxfp4 with exponents, of expert \(index)", make)
        }
        let weight = try make().mapTensors { try host.resident($0, on: backend, unlessBackedBy: nil) }
        return try prepared(weight, on: backend)
    }
}
