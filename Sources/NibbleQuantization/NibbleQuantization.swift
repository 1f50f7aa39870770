import NibbleCore
