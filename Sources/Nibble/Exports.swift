// `import Nibble` is enough: what these modules export is the vocabulary of the façade's signatures and errors. Everything
// else in them is `package`.
@_exported import NibbleCUDA
@_exported import NibbleCheckpoint
@_exported import NibbleCore
@_exported import NibbleDeviceMap
@_exported import NibbleGeneration
@_exported import NibbleGrammar
@_exported import NibbleHub
@_exported import NibbleLoading
@_exported import NibbleModels
@_exported import NibbleQuantization
@_exported import NibbleServing
@_exported import NibbleTemplates
@_exported import NibbleTokenizers
