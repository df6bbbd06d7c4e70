"""Edge-preserving filters of OpenCV for a picture of (H, W, 3) float32 in [0, 1]; each gives a function of a picture."""


def filters() -> dict:
    import cv2

    return {
        "OpenCV domain transform, normalized convolution": lambda image: cv2.ximgproc.dtFilter(
            image, image, 60, 0.4, mode=cv2.ximgproc.DTF_NC),
        "OpenCV domain transform, recursive filter": lambda image: cv2.ximgproc.dtFilter(
            image, image, 60, 0.4, mode=cv2.ximgproc.DTF_RF),
        "OpenCV guided filter": lambda image: cv2.ximgproc.guidedFilter(image, image, 16, 0.02),
        "OpenCV bilateral filter": lambda image: cv2.bilateralFilter(image, 15, 0.2, 7),
    }
