"""From FP32 to FP16 and INT8: ranges, bias correction, saturation and portability."""
