import NibbleCore
import Testing

@Suite struct BFloat16Tests {
    @Test(
        "rounding to bfloat16 is nearest, ties to even",
        arguments: [
            (0x3F80_0000, 0x3F80), (0x3F80_8000, 0x3F80), (0x3F81_8000, 0x3F82), (0x3F80_8001, 0x3F81), (0xFF80_0000, 0xFF80),
            (0x7F7F_FFFF, 0x7F80),
        ] as [(UInt32, UInt16)])
    func rounding(single: UInt32, brain: UInt16) {
        #expect(BFloat16(Float(bitPattern: single)).bitPattern == brain)
    }

    @Test func nanStaysNaN() {
        #expect(Float(BFloat16(Float.nan)).isNaN)
        #expect(Float(BFloat16(Float(bitPattern: 0x7F80_0001))).isNaN)
    }
}

@Suite struct ShapeTests {
    @Test func countsAndEquality() {
        #expect(Shape([2, 3]).count == 6)
        #expect(Shape([]).count == 1)
        #expect(Shape([2, 3]) != Shape([2, 3, 1]))
        #expect(Shape([2, 3]).description == "[2, 3]")
    }

    @Test("shapes from files are refused, not trapped on", arguments: [[-1], [1, 2, 3, 4, 5], [Int.max, 2]])
    func validation(dimensions: [Int]) {
        #expect(Shape(validating: dimensions) == nil)
    }
}

@Suite struct DeviceTests {
    @Test(
        "names and map keys agree",
        arguments: [("cpu", Device.cpu), ("disk", .disk), ("cuda", .cuda(0)), ("cuda:3", .cuda(3)), ("2", .cuda(2))])
    func names(name: String, device: Device) {
        #expect(Device(name: name) == device)
        #expect(Device(name: device.mapKey) == device)
    }

    @Test("anything else is no device", arguments: ["", "gpu", "cuda:", "cuda:-1", "-1", "1.5"])
    func refused(name: String) {
        #expect(Device(name: name) == nil)
    }
}
